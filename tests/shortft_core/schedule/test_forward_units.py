"""The cost model gives the counts of the paper's chains."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core import schedule

GUIDED = 7.5


def stage(number: int, first_segment_grad_steps: int = 1) -> schedule.Plan:
    readings = schedule.Readings(first_segment_grad_steps=first_segment_grad_steps)
    return schedule.plan(50, 4, number, readings=readings)


@pytest.mark.parametrize(("number", "expected"), [(1, 55), (2, 72), (3, 87), (4, 104)])
def test_stages_of_shortft(number: int, expected: int) -> None:
    assert schedule.forward_units(stage(number), guidance_scale=GUIDED) == expected


@given(st.integers(1, 12))
def test_each_attached_step_of_segment_1_costs_4_more(attached: int) -> None:
    assert schedule.forward_units(stage(1, attached), guidance_scale=GUIDED) == 51 + 4 * attached


def test_the_naive_jump_is_guided_like_the_base_model() -> None:
    assert (
        schedule.forward_units(stage(1), guidance_scale=GUIDED, shortcut_guidance=GUIDED)
        == 55 + 3 * 3
    )


@given(st.integers(1, 50), st.booleans())
def test_draft_k(gradient_steps: int, checkpointing: bool) -> None:  # noqa: FBT001
    chain = schedule.draft_k_plan(50, gradient_steps)
    found = schedule.forward_units(
        chain, guidance_scale=GUIDED, gradient_checkpointing=checkpointing
    )
    assert found == 100 + gradient_steps * (6 if checkpointing else 4)


def test_draft_lv_denoises_two_more_copies() -> None:
    chain = schedule.draft_k_plan(50, 1)
    assert schedule.forward_units(chain + chain[-1:] * 2, guidance_scale=GUIDED) == 116


@given(st.integers(1, 10))
def test_drtune_costs_the_same_wherever_it_starts(start: int) -> None:
    trained = schedule.drtune_steps(50, 5, start)
    chain = schedule.drtune_plan(schedule.base_plan(50), trained)
    assert schedule.forward_units(chain, guidance_scale=GUIDED) == 120


def test_alignprop_keeps_step_i_with_probability_i_plus_1_of_51() -> None:
    base = schedule.base_plan(50)
    each = [
        schedule.forward_units(base[i : i + 1], guidance_scale=GUIDED) * (50 - i) / 51
        + schedule.forward_units(
            schedule.alignprop_plan(base[i : i + 1], [True]),
            guidance_scale=GUIDED,
            gradient_checkpointing=True,
        )
        * (i + 1)
        / 51
        for i in range(50)
    ]
    assert sum(each) == pytest.approx(250)


def test_refl_is_not_guided() -> None:
    chain = schedule.base_plan(40)
    found = [
        schedule.forward_units(schedule.refl_plan(chain, mid), guidance_scale=1.0)
        for mid in range(30, 40)
    ]
    assert fmean(found) == 37.5


def test_direct_tuning_attaches_four_calls() -> None:
    chain = schedule.attach(schedule.few_step_plan(4, spacing="segments"), first=0)
    assert schedule.forward_units(chain, guidance_scale=1.0) == 12
