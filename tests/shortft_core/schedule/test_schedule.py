from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core.errors import PlanError
from shortft_core.schedule import (
    CLEAN,
    Evaluation,
    Plan,
    Readings,
    base_plan,
    counts,
    ddim_grid,
    draft_k_plan,
    equal_borders,
    inference_plan,
    jumps,
    longest_chain,
    plan,
    refuse_untrained_jumps,
    segment_indices,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FOUR_PARTS = equal_borders(4)


@st.composite
def chains(draw: Callable[[st.SearchStrategy[int]], int]) -> tuple[int, int, int]:
    """Steps, segments and stage of a chain that can be cut."""
    steps = draw(st.integers(1, 120))
    segments = draw(st.integers(1, min(steps, 12)))
    return steps, segments, draw(st.integers(1, segments))


def without_gradient(chain: Plan) -> Plan:
    return tuple(replace(evaluation, with_gradient=False) for evaluation in chain)


def test_the_grid_of_fifty_steps() -> None:
    assert ddim_grid(50) == tuple(range(981, 0, -20))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20, 28, 30, 33, 49, 50, 64, 100, 333, 500, 999])
@pytest.mark.parametrize("offset", [0, 1])
def test_the_grid_is_that_of_diffusers(steps: int, offset: int) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(steps_offset=offset, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    assert ddim_grid(steps, offset=offset) == tuple(scheduler.timesteps.tolist())


@pytest.mark.parametrize("steps", [-1, 0, 1000, 1001])
def test_a_grid_that_leaves_the_noise_levels_is_refused(steps: int) -> None:
    with pytest.raises(PlanError, match="Use 1 to 999 steps") as caught:
        ddim_grid(steps)
    assert caught.value.field == "method.steps"


def test_without_offset_every_noise_level_may_be_a_step() -> None:
    assert ddim_grid(1000, offset=0) == tuple(range(999, -1, -1))


@pytest.mark.parametrize("offset", [-1, 2])
def test_an_offset_that_diffusers_would_treat_otherwise_is_refused(offset: int) -> None:
    with pytest.raises(PlanError, match="steps_offset"):
        longest_chain(1000, offset)


@given(st.integers(1, 999))
def test_every_legal_grid_descends_evenly_within_the_noise_levels(steps: int) -> None:
    grid = ddim_grid(steps)
    assert len(grid) == steps
    assert grid[-1] == 1
    assert grid[0] < 1000
    assert {first - second for first, second in pairwise(grid)} <= {1000 // steps}


def test_the_segments_of_the_paper() -> None:
    grid = ddim_grid(50)
    segments = segment_indices(50, 4)
    assert [len(segment) for segment in segments] == [12, 13, 12, 13]
    assert [grid[segment.stop - 1] for segment in segments] == [761, 501, 261, 1]
    assert [grid[segment.start] for segment in segments] == [981, 741, 481, 241]


@given(chains())
def test_segments_partition_the_grid(chain: tuple[int, int, int]) -> None:
    steps, segments, _ = chain
    indices = [index for segment in segment_indices(steps, segments) for index in segment]
    assert indices == list(range(steps))
    assert all(segment_indices(steps, segments))


@pytest.mark.parametrize(("steps", "segments"), [(4, 5), (4, 0), (4, -1)])
def test_an_empty_segment_is_refused(steps: int, segments: int) -> None:
    with pytest.raises(PlanError, match="Use 1 to 4 segments") as caught:
        plan(steps, segments, 1)
    assert caught.value.field == "method.segments"


def test_the_shortcuts_of_stage_one() -> None:
    chain = plan(50, 4, 1, shortcut_borders=FOUR_PARTS)
    assert [e for e in chain if e.denoiser == "shortcut"] == [
        Evaluation(741, 501, "shortcut", (), with_gradient=True),
        Evaluation(481, 261, "shortcut", (), with_gradient=True),
        Evaluation(241, 1, "shortcut", (), with_gradient=True),
    ]
    assert chain[-1] == Evaluation(1, CLEAN, "base", (1, 2, 3, 4), with_gradient=True)


@pytest.mark.parametrize(
    ("stage", "expected"), [(1, (7, 11)), (2, (5, 24)), (3, (3, 36)), (4, (1, 49))]
)
def test_the_counts_of_the_paper(stage: int, expected: tuple[int, int]) -> None:
    assert counts(plan(50, 4, stage, shortcut_borders=FOUR_PARTS)) == expected


@pytest.mark.parametrize("attached", range(1, 13))
def test_first_segment_grad_steps_attaches_the_end_of_segment_one(attached: int) -> None:
    chain = plan(50, 4, 1, readings=Readings(first_segment_grad_steps=attached))
    assert counts(chain) == (6 + attached, 12 - attached)
    assert [e.with_gradient for e in chain] == [False] * (12 - attached) + [True] * (6 + attached)


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_first_segment_grad_steps_means_nothing_after_stage_one(stage: int) -> None:
    assert plan(50, 4, stage, readings=Readings(first_segment_grad_steps=12)) == plan(50, 4, stage)


@pytest.mark.parametrize("attached", [0, 13])
@pytest.mark.parametrize("stage", [1, 4])
def test_first_segment_grad_steps_outside_segment_one_is_refused(attached: int, stage: int) -> None:
    with pytest.raises(PlanError, match="Use 1 to 12") as caught:
        plan(50, 4, stage, readings=Readings(first_segment_grad_steps=attached))
    assert caught.value.field == "method.first_segment_grad_steps"


@pytest.mark.parametrize("stage", [0, 5])
def test_a_stage_that_does_not_exist_is_refused(stage: int) -> None:
    with pytest.raises(PlanError, match="Use 1 to 4") as caught:
        plan(50, 4, stage)
    assert caught.value.field == "stage"


def test_inference_uses_lora_at_fifteen_of_fifty_steps_and_no_shortcut() -> None:
    chain = inference_plan(50, 4)
    assert [e.timestep for e in chain if e.branches] == [*range(981, 760, -20), 501, 261, 1]
    assert {e.timestep: e.branches for e in chain}[761] == (1,)
    assert {e.timestep: e.branches for e in chain}[501] == (1, 2)
    assert {e.timestep: e.branches for e in chain}[261] == (1, 2, 3)
    assert {e.denoiser for e in chain} == {"base"}


@given(chains())
def test_the_last_stage_is_inference_with_gradient_at_the_end(chain: tuple[int, int, int]) -> None:
    steps, segments, _ = chain
    last = plan(steps, segments, segments)
    assert without_gradient(last) == inference_plan(steps, segments)
    assert [e.with_gradient for e in last] == [False] * (steps - 1) + [True]


@given(chains())
def test_each_evaluation_starts_where_the_one_before_ended(chain: tuple[int, int, int]) -> None:
    evaluations = plan(*chain)
    assert evaluations[0].timestep == ddim_grid(chain[0])[0]
    assert evaluations[-1].next_timestep == CLEAN
    for before, after in pairwise(evaluations):
        assert before.next_timestep == after.timestep
        assert before.timestep > before.next_timestep


@given(chains())
def test_counts_follow_from_the_segments(chain: tuple[int, int, int]) -> None:
    steps, segments, stage = chain
    bounds = segment_indices(steps, segments)
    shortcuts = sum(len(segment) > 1 for segment in bounds[stage:])
    with_gradient = 1 + (segments - stage) + shortcuts
    assert counts(plan(*chain)) == (with_gradient, bounds[stage - 1].stop - 1)


@given(chains())
def test_gradient_once_begun_reaches_the_image(chain: tuple[int, int, int]) -> None:
    flags = [evaluation.with_gradient for evaluation in plan(*chain)]
    assert flags == sorted(flags)
    assert flags[-1]


@given(chains())
def test_replacing_shortcuts_by_their_base_steps_gives_inference(
    chain: tuple[int, int, int],
) -> None:
    """Whatever a stage skips are steps without any branch: that is what makes shortcuts legal."""
    steps, segments, stage = chain
    shortened = without_gradient(plan(steps, segments, stage))
    full = inference_plan(steps, segments)
    kept = {e for e in shortened if e.denoiser == "base"}
    assert kept <= set(full)
    assert all(e.branches == () for e in full if e not in kept)


@given(chains(), st.integers(1, 12))
def test_every_plan_is_legal_or_refused(chain: tuple[int, int, int], parts: int) -> None:
    borders = equal_borders(parts)
    spans = jumps(plan(*chain))
    crosses = any(end < border < start for start, end in spans for border in borders)
    if crosses:
        with pytest.raises(PlanError, match="crosses the border"):
            plan(*chain, shortcut_borders=borders)
    else:
        assert plan(*chain, shortcut_borders=borders) == plan(*chain)


def test_equal_borders() -> None:
    assert FOUR_PARTS == (750, 500, 250)
    assert equal_borders(1) == ()
    assert equal_borders(8)[0] == 875
    with pytest.raises(PlanError):
        equal_borders(0)


@pytest.mark.parametrize(
    ("steps", "jump"), [(30, "727 -> 496"), (28, "701 -> 491")], ids=["30", "28"]
)
def test_chains_that_a_four_step_shortcut_cannot_serve(steps: int, jump: str) -> None:
    with pytest.raises(PlanError, match=f"{jump}, which crosses the border 500") as caught:
        plan(steps, 4, 1, shortcut_borders=FOUR_PARTS)
    assert caught.value.field == "method.steps"


def test_the_refusal_offers_steps_that_are_legal() -> None:
    with pytest.raises(PlanError) as caught:
        plan(30, 4, 1, shortcut_borders=FOUR_PARTS)
    offered = [int(word) for word in caught.value.remedy.split() if word.isdigit()]
    assert len(offered) == 3
    for steps in offered:
        assert plan(steps, 4, 1, shortcut_borders=FOUR_PARTS)


def test_a_jump_may_end_on_a_border() -> None:
    assert plan(50, 4, 1, shortcut_borders=(741, 501)) == plan(50, 4, 1)
    with pytest.raises(PlanError):
        plan(50, 4, 1, shortcut_borders=(502,))


def test_a_segment_of_one_step_has_no_shortcut() -> None:
    assert {e.denoiser for e in plan(4, 4, 1, shortcut_borders=FOUR_PARTS)} == {"base"}
    assert counts(plan(4, 4, 1)) == (4, 0)


@pytest.mark.parametrize("gradient_steps", [1, 5, 50])
def test_draft_k_attaches_the_last_k_steps(gradient_steps: int) -> None:
    chain = draft_k_plan(50, gradient_steps)
    assert counts(chain) == (gradient_steps, 50 - gradient_steps)
    assert all(e.with_gradient for e in chain[-gradient_steps:])
    assert without_gradient(chain) == base_plan(50, branches=(1,))


@pytest.mark.parametrize("gradient_steps", [0, 51])
def test_draft_k_outside_the_chain_is_refused(gradient_steps: int) -> None:
    with pytest.raises(PlanError) as caught:
        draft_k_plan(50, gradient_steps)
    assert caught.value.field == "method.gradient_steps"


def test_the_base_plan_activates_nothing() -> None:
    chain = base_plan(20)
    assert len(chain) == 20
    assert {(e.denoiser, e.branches, e.with_gradient) for e in chain} == {("base", (), False)}


def test_a_shortcut_of_exact_jumps_serves_no_others() -> None:
    chain = plan(50, 4, 1)
    refuse_untrained_jumps(jumps(chain), jumps(chain))
    with pytest.raises(PlanError, match="not distilled for the jump 481 -> 261") as caught:
        refuse_untrained_jumps(jumps(chain), [(741, 501), (241, 1)])
    assert caught.value.field == "method.shortcut"


@given(chains())
def test_independent_and_shared_branches_act_where_cumulative_ones_do(
    chain: tuple[int, int, int],
) -> None:
    steps, segments, _ = chain
    stacks = [e.branches for e in inference_plan(steps, segments)]
    alone = inference_plan(steps, segments, readings=Readings(stacking="independent"))
    assert [e.branches for e in alone] == [stack[-1:] for stack in stacks]
    shared = inference_plan(steps, segments, readings=Readings(stacking="shared"))
    assert [e.branches for e in shared] == [(1,) if stack else () for stack in stacks]


@given(chains())
def test_detached_branches_are_those_below_the_segments_own(chain: tuple[int, int, int]) -> None:
    detached = plan(*chain, readings=Readings(detach_lower_branches=True))
    assert [e.detached for e in detached] == [e.branches[:-1] for e in detached]
    assert tuple(replace(e, detached=()) for e in detached) == plan(*chain)
