"""Every measured variant is a legal job, and the goals are ratios of what was measured."""

from __future__ import annotations

import pytest

from benchmarks import cost
from benchmarks.cost import Cost, Sample
from benchmarks.updates import job
from shortft_core.spec import DraftK


def made(name: str, *seconds: float, threads: int = 1, units: float = 60.0) -> Cost:
    samples = tuple(Sample(value, 3 * 2**20, units) for value in seconds)
    return Cost(name, threads, samples)


@pytest.mark.parametrize("name", cost.VARIANTS)
def test_every_variant_is_a_legal_job(name: str) -> None:
    assert job(cost.VARIANTS[name].method).method.batch_size == 4


def test_a_row_is_the_median_beside_drtune() -> None:
    drtune = made(cost.DRTUNE, 2.0, 2.0, units=120)
    row = made(cost.SHORTFT, 0.9, 1.0, 7.0, units=55).row(drtune)
    assert (row["seconds_per_image"], row["fastest"], row["slowest"]) == (1.0, 0.9, 7.0)
    assert (row["to_drtune"], row["units_to_drtune"]) == (0.5, round(55 / 120, 4))
    assert row["peak_mebibytes"] == 3.0


def test_goals_are_checked_for_each_number_of_threads() -> None:
    costs = [
        made(name, seconds * threads, threads=threads)
        for threads in (1, 2)
        for name, seconds in ((cost.SHORTFT, 1.0), (cost.DRTUNE, 2.5), (cost.ALIGNPROP, 3.0))
    ]
    goals = cost.goals_of(costs)
    assert {(goal["to"], goal["threads"], goal["ratio"]) for goal in goals} == {
        (cost.DRTUNE, 1, 0.4),
        (cost.DRTUNE, 2, 0.4),
        (cost.ALIGNPROP, 1, 0.3333),
        (cost.ALIGNPROP, 2, 0.3333),
    }
    assert "is kept" in cost._goal_line(goals[0])
    assert "is missed" in cost._goal_line(goals[2])


def test_one_sample_of_the_real_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    short = DraftK(steps=3, gradient_steps=2, rank=2, batch_size=1, updates=1)
    monkeypatch.setitem(cost.VARIANTS, "short", cost.Variant(short))
    sample = cost.measure("short", threads=1, number=0)
    assert sample.units == 2 + 2 * 6
    assert sample.seconds_per_image > 0
