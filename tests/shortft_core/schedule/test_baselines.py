"""The chains of the other methods, for every length that they allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core.errors import PlanError
from shortft_core.schedule import (
    CLEAN,
    PREDICTED,
    Plan,
    alignprop_plan,
    base_plan,
    counts,
    drtune_plan,
    drtune_starts,
    drtune_steps,
    few_step_plan,
    refl_plan,
)


def without_gradient(chain: Plan) -> Plan:
    return tuple(replace(evaluation, with_gradient=False) for evaluation in chain)


@st.composite
def trained(draw: Callable[[st.SearchStrategy[int]], int]) -> tuple[int, int]:
    """A chain of T steps of which K are trained."""
    steps = draw(st.integers(1, 200))
    return steps, draw(st.integers(1, steps))


@given(trained())
def test_drtune_trains_k_equally_spaced_steps_from_every_start(chain: tuple[int, int]) -> None:
    """{s + i floor(T / K)} for s in 1..T - (K - 1) floor(T / K), T divisible by K or not."""
    steps, count = chain
    stride, last = steps // count, drtune_starts(steps, count)
    assert last == steps - (count - 1) * stride
    for start in range(1, last + 1):
        numbers = drtune_steps(steps, count, start)
        assert numbers == tuple(range(start, start + count * stride, stride))
        assert 1 <= min(numbers) <= max(numbers) <= steps
    for start in (0, last + 1):
        with pytest.raises(PlanError, match="leaves no room"):
            drtune_steps(steps, count, start)


@pytest.mark.parametrize("count", [0, 51])
def test_drtune_outside_the_chain_is_refused(count: int) -> None:
    with pytest.raises(PlanError) as caught:
        drtune_starts(50, count)
    assert caught.value.field == "method.trained_steps"


@given(trained(), st.integers(0, 199))
def test_drtune_attaches_the_steps_it_names(chain: tuple[int, int], offset: int) -> None:
    steps, count = chain
    start = 1 + offset % drtune_starts(steps, count)
    numbers = drtune_steps(steps, count, start)
    tuned = drtune_plan(base_plan(steps), numbers)
    assert {steps - index for index, e in enumerate(tuned) if e.with_gradient} == set(numbers)
    assert all(e.detach_input for e in tuned)
    assert tuned[-1].next_timestep == CLEAN


@given(st.integers(1, 100), st.integers(1, 100))
def test_drtune_stops_at_the_step_it_is_told(steps: int, stop: int) -> None:
    stop = 1 + (stop - 1) % steps
    tuned = drtune_plan(base_plan(steps), {steps}, stop)
    assert len(tuned) == steps - stop + 1
    assert [e.next_timestep == PREDICTED for e in tuned] == [False] * (len(tuned) - 1) + [True]


def test_drtune_counts_from_the_image_upwards() -> None:
    tuned = drtune_plan(base_plan(50), {50, 25, 1})
    assert [e.timestep for e in tuned if e.with_gradient] == [981, 481, 1]


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_alignprop_keeps_what_it_is_told(kept: list[bool]) -> None:
    chain = alignprop_plan(base_plan(len(kept)), kept)
    assert [e.with_gradient for e in chain] == kept
    assert without_gradient(chain) == base_plan(len(kept))
    with pytest.raises(ValueError, match="zip"):
        alignprop_plan(base_plan(len(kept) + 1), kept)


@given(st.integers(1, 60), st.integers(0, 59))
def test_refl_attaches_one_step_and_predicts_from_it(steps: int, mid: int) -> None:
    chain = base_plan(steps)
    if mid >= steps:
        with pytest.raises(PlanError):
            refl_plan(chain, mid)
        return
    tuned = refl_plan(chain, mid)
    assert counts(tuned) == (1, mid)
    assert [e.timestep for e in tuned] == [e.timestep for e in chain[: mid + 1]]
    assert [e.eta for e in tuned] == [1.0] * mid + [0.0]
    assert (tuned[-1].with_gradient, tuned[-1].next_timestep) == (True, PREDICTED)


def test_a_few_step_chain_starts_where_its_model_was_distilled() -> None:
    assert [e.timestep for e in few_step_plan(4, spacing="trailing")] == [999, 749, 499, 249]
    assert [e.timestep for e in few_step_plan(4, spacing="segments")] == [981, 741, 481, 241]


@pytest.mark.parametrize("segments", [1, 2, 3, 4, 8])
def test_trailing_chains_are_those_of_diffusers(segments: int) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(segments)
    chain = few_step_plan(segments, spacing="trailing")
    assert [e.timestep for e in chain] == scheduler.timesteps.tolist()
    assert chain[-1].next_timestep == CLEAN
