"""ShortFT's chains (Guo et al., ICCV 2025): the training chain of each stage, and inference."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Final, Literal

from shortft_core.errors import PlanError
from shortft_core.schedule.chain import (
    CLEAN,
    Evaluation,
    Plan,
    attach,
    ddim_grid,
    longest_chain,
    segment_indices,
)

Scope = Literal["last_step", "segment"]
Stacking = Literal["cumulative", "independent", "shared", "shared_all_steps"]


@dataclass(frozen=True, slots=True)
class Readings:
    """How the open points of the paper are read; the defaults are the ones it supports best."""

    first_segment_grad_steps: int = 1
    """Steps at the end of segment 1 that carry gradient in stage 1; all of them draw its figure."""
    scope: Scope = "last_step"
    """Whether branch i >= 2 acts on the last step of its segment only, or on all of it."""
    stacking: Stacking = "cumulative"
    """What acts in segment i: branches 1..i, branch i alone, or one branch shared by all segments
    on the same steps (`shared`) or on every step (`shared_all_steps`)."""
    detach_lower_branches: bool = False
    """Whether branches 1..i-1 act in segment i without learning from it."""


PAPER: Final = Readings()


def inference_plan(
    steps: int,
    segments: int,
    *,
    readings: Readings = PAPER,
    train_timesteps: int = 1000,
    offset: int = 1,
) -> Plan:
    """The chain that a tuned model serves: all N steps, each with the branches of its segment."""
    grid = ddim_grid(steps, train_timesteps, offset)
    stacks = _stacks(segment_indices(steps, segments), readings)
    return tuple(
        Evaluation(t, s, branches=branches)
        for (t, s), branches in zip(pairwise((*grid, CLEAN)), stacks, strict=True)
    )


def plan(
    steps: int,
    segments: int,
    stage: int,
    *,
    readings: Readings = PAPER,
    shortcut_borders: tuple[int, ...] | None = None,
    train_timesteps: int = 1000,
    offset: int = 1,
) -> Plan:
    """ShortFT's training chain: segments up to `stage` run in full, shortcuts stand in after it.

    Gradient starts at the last step of segment `stage`; in stage 1 at the last
    `first_segment_grad_steps` steps of segment 1. `shortcut_borders` are the timesteps that a jump
    may not cross (None: the shortcut has none). Raises PlanError where no legal chain exists.
    """
    bounds = segment_indices(steps, segments)
    _check_stage(stage, segments)
    _check_first_segment(readings.first_segment_grad_steps, len(bounds[0]))
    full = inference_plan(
        steps, segments, readings=readings, train_timesteps=train_timesteps, offset=offset
    )
    attached = readings.first_segment_grad_steps if stage == 1 else 1
    original = attach(full[: bounds[stage - 1].stop], first=bounds[stage - 1].stop - attached)
    shortened = [
        evaluation
        for segment in bounds[stage:]
        for evaluation in _shorten(full[segment.start : segment.stop])
    ]
    chain = (*original, *shortened)
    if crossed := next(_crossings(chain, shortcut_borders or ()), None):
        alternatives = _legal_steps(
            steps, segments, shortcut_borders or (), train_timesteps, offset
        )
        raise _crossing_error(crossed, steps, segments, alternatives)
    return _without_lower_branches(chain) if readings.detach_lower_branches else chain


def jumps(chain: Plan) -> tuple[tuple[int, int], ...]:
    """The shortcuts of a chain, as (timestep, next_timestep)."""
    return tuple((e.timestep, e.next_timestep) for e in chain if e.denoiser == "shortcut")


def refuse_untrained_jumps(
    made: Iterable[tuple[int, int]],
    trained: Collection[tuple[int, int]],
    field: str = "method.shortcut",
) -> None:
    """Raises PlanError for a jump that a model distilled on exact pairs was not trained for."""
    odd = [jump for jump in made if jump not in set(trained)]
    if odd:
        known = ", ".join(f"{t} -> {s}" for t, s in sorted(trained, reverse=True))
        raise PlanError(
            field,
            f"it was not distilled for the jump {odd[0][0]} -> {odd[0][1]}, only for {known}",
            "Use its steps and segments, or distil one for yours with `shortft distil`",
        )


def _stacks(bounds: tuple[range, ...], readings: Readings) -> Iterator[tuple[int, ...]]:
    """Branches per step: 1 on all of segment 1, then those of segment i on its last step only."""
    for number, segment in enumerate(bounds, start=1):
        for index in segment:
            covered = number == 1 or readings.scope == "segment" or index == segment.stop - 1
            yield _stack(number, readings.stacking, covered=covered)


def _stack(segment: int, stacking: Stacking, *, covered: bool) -> tuple[int, ...]:
    if stacking == "shared_all_steps":
        return (1,)
    if not covered:
        return ()
    alone = {"independent": (segment,), "shared": (1,)}
    return alone.get(stacking, tuple(range(1, segment + 1)))


def _without_lower_branches(chain: Plan) -> Plan:
    return tuple(replace(e, detached=e.branches[:-1]) for e in chain)


def _shorten(segment: Plan) -> Iterator[Evaluation]:
    """One jump from the segment's first to its last step, then that step, both with gradient."""
    first, last = segment[0], segment[-1]
    if first is not last:
        yield Evaluation(first.timestep, last.timestep, "shortcut", with_gradient=True)
    yield from attach((last,), first=0)


def _check_stage(stage: int, segments: int) -> None:
    if not 1 <= stage <= segments:
        raise PlanError("stage", f"there is no stage {stage}", f"Use 1 to {segments}")


def _check_first_segment(gradient_steps: int, length: int) -> None:
    if not 1 <= gradient_steps <= length:
        raise PlanError(
            "method.first_segment_grad_steps",
            f"{gradient_steps} of the {length} steps of segment 1 cannot carry gradient",
            f"Use 1 to {length}",
        )


def _crossings(chain: Plan, borders: tuple[int, ...]) -> Iterator[tuple[Evaluation, int]]:
    """Jumps with a border strictly inside; one that ends on a border stays within its training."""
    for jump in chain:
        if jump.denoiser == "shortcut":
            for border in borders:
                if jump.next_timestep < border < jump.timestep:
                    yield jump, border


def _legal_steps(
    steps: int, segments: int, borders: tuple[int, ...], train_timesteps: int, offset: int
) -> tuple[int, ...]:
    """Up to three numbers of steps near `steps` whose jumps are all legal in the same segments."""
    longest = min(2 * steps, longest_chain(train_timesteps, offset))
    by_distance = sorted(range(segments, longest + 1), key=lambda other: abs(other - steps))
    legal = (
        other
        for other in by_distance
        if _jumps_are_legal(ddim_grid(other, train_timesteps, offset), segments, borders)
    )
    return tuple(sorted(islice(legal, 3)))


def _jumps_are_legal(grid: tuple[int, ...], segments: int, borders: tuple[int, ...]) -> bool:
    return not any(
        grid[segment.stop - 1] < border < grid[segment.start]
        for segment in segment_indices(len(grid), segments)[1:]
        for border in borders
    )


def _crossing_error(
    crossed: tuple[Evaluation, int], steps: int, segments: int, alternatives: tuple[int, ...]
) -> PlanError:
    jump, border = crossed
    return PlanError(
        "method.steps",
        f"{steps} steps in {segments} segments need the shortcut {jump.timestep} -> "
        f"{jump.next_timestep}, which crosses the border {border} of its training",
        f"Use {' or '.join(map(str, alternatives))} steps, other segments or another shortcut",
    )
