"""Paired intervals: Student's table, prompts as units, and the coverage they promise."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core.paired import change, changes, student_quantile

# Student's table, two-sided 95 %, as printed in every textbook.
TABLE = {
    1: 12.7062,
    2: 4.3027,
    3: 3.1824,
    4: 2.7764,
    7: 2.3646,
    10: 2.2281,
    30: 2.0423,
    100: 1.9840,
}

finite = st.floats(-1e3, 1e3)


@pytest.mark.parametrize(("freedom", "quantile"), TABLE.items())
def test_the_quantile_is_that_of_the_table(freedom: int, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, abs=5e-5)


def test_the_quantile_becomes_the_normal_one() -> None:
    normal = statistics.NormalDist().inv_cdf(0.975)
    assert student_quantile(20_000) == pytest.approx(normal, abs=2e-4)


def test_a_known_interval() -> None:
    found = change(["a", "b", "c"], [0.0, 0.0, 0.0], [1.0, 2.0, -3.0])
    assert found.mean == 0.0
    assert found.half_width == pytest.approx(4.302653 * 7**0.5 / 3**0.5, rel=1e-6)
    assert (found.improved, found.pairs) == (2, 3)
    assert found.interval == (-(found.half_width or 0.0), found.half_width)


def test_seeds_of_one_prompt_are_one_unit() -> None:
    prompts = ["a", "a", "b", "b"]
    found = change(prompts, [0.0] * 4, [1.0, 3.0, 5.0, 7.0])
    alone = change(["a", "b"], [0.0, 0.0], [2.0, 6.0])
    assert (found.mean, found.half_width) == (alone.mean, alone.half_width)
    assert found.pairs == 4


def test_seeds_are_the_units_of_a_single_prompt() -> None:
    found = change(["a", "a"], [0.0, 0.0], [1.0, 3.0])
    assert found.half_width == pytest.approx(12.706205)


def test_one_pair_has_a_mean_and_no_interval() -> None:
    found = change(["a"], [0.25], [1.0])
    assert (found.mean, found.half_width, found.interval) == (0.75, None, None)


def test_a_score_that_is_not_finite_has_no_interval() -> None:
    assert change(["a", "b"], [0.0, 0.0], [1.0, float("inf")]).half_width is None


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pair"):
        change([], [], [])
    with pytest.raises(ValueError, match="shorter"):
        change(["a", "b"], [0.0, 1.0], [0.0])


def test_every_judge_is_compared() -> None:
    before, after = [{"x": 0.0, "y": 1.0}], [{"x": 0.5, "y": 0.0}]
    assert {j: c.mean for j, c in changes(["a"], before, after).items()} == {"x": 0.5, "y": -1.0}


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=20))
def test_swapping_the_sides_turns_the_interval_around(pairs: list[tuple[float, float]]) -> None:
    prompts = [str(index) for index in range(len(pairs))]
    before, after = zip(*pairs, strict=True)
    there, back = change(prompts, before, after), change(prompts, after, before)
    assert there.mean == pytest.approx(-back.mean, abs=1e-9)
    assert there.half_width == pytest.approx(back.half_width, abs=1e-9)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    numbers = random.Random(0)
    trials = 2000
    held = 0
    for _ in range(trials):
        after = [numbers.gauss(1.0, 2.0) for _ in range(5)]
        low, high = change(list("abcde"), [0.0] * 5, after).interval or (0.0, 0.0)
        held += low < 1.0 < high
    # Three standard errors of the share itself.
    assert held / trials == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / trials) ** 0.5)
