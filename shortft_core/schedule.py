"""The denoising chain as data: which evaluations a training step or a sampling run makes.

Training, evaluation, inference and the counters all run the records made here; nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final, Literal

from shortft_core.errors import PlanError

CLEAN: Final = -1
"""`next_timestep` of the last evaluation: clean latents, whose noise level is that of timestep 0.

Stable Diffusion was trained with `set_alpha_to_one=False`: the chain ends at alphas_cumprod[0].
"""

Denoiser = Literal["base", "shortcut"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One call of a denoiser, from the noise level of `timestep` to that of `next_timestep`."""

    timestep: int
    next_timestep: int
    denoiser: Denoiser = "base"
    branches: tuple[int, ...] = ()
    """Branches whose increments are summed during this call, counted from 1."""
    with_gradient: bool = False


Plan = tuple[Evaluation, ...]


def ddim_grid(steps: int, train_timesteps: int = 1000, offset: int = 1) -> tuple[int, ...]:
    """Leading-spaced DDIM timesteps, noisiest first: t_j = offset + (T // N) (N - 1 - j).

    Raises PlanError where the grid would leave the `train_timesteps` noise levels of the model.
    """
    longest = longest_chain(train_timesteps, offset)
    if not 1 <= steps <= longest:
        raise PlanError(
            "method.steps",
            f"a chain of {steps} steps does not fit {train_timesteps} noise levels",
            f"Use 1 to {longest} steps",
        )
    stride = train_timesteps // steps
    return tuple(offset + stride * index for index in reversed(range(steps)))


def longest_chain(train_timesteps: int = 1000, offset: int = 1) -> int:
    """The largest number of steps whose leading grid stays below `train_timesteps`."""
    if not 0 <= offset <= 1 <= train_timesteps - offset:
        raise PlanError(
            "base_model",
            f"steps_offset {offset} on {train_timesteps} noise levels is not a leading DDIM grid",
            "Use a model whose scheduler has steps_offset 0 or 1",
        )
    return train_timesteps - offset


def segment_indices(steps: int, segments: int) -> tuple[range, ...]:
    """Grid indices of each segment: segment i starts at floor(i N / k), as TCD and LCM cut."""
    if not 1 <= segments <= steps:
        raise PlanError(
            "method.segments",
            f"{steps} steps cannot be cut into {segments} segments",
            f"Use 1 to {steps} segments",
        )
    borders = [index * steps // segments for index in range(segments + 1)]
    return tuple(range(start, stop) for start, stop in pairwise(borders))


def equal_borders(parts: int, train_timesteps: int = 1000) -> tuple[int, ...]:
    """Inner borders of a shortcut distilled on equal parts of the chain: 750, 500, 250 for four."""
    if not 1 <= parts <= train_timesteps:
        raise PlanError(
            "shortcut",
            f"{train_timesteps} noise levels cannot be cut into {parts} parts",
            f"Use 1 to {train_timesteps} parts",
        )
    return tuple(part * train_timesteps // parts for part in range(parts - 1, 0, -1))


def base_plan(
    steps: int,
    *,
    branches: tuple[int, ...] = (),
    train_timesteps: int = 1000,
    offset: int = 1,
) -> Plan:
    """The full chain without gradient, the same branches on every step."""
    grid = ddim_grid(steps, train_timesteps, offset)
    return tuple(Evaluation(t, s, branches=branches) for t, s in pairwise((*grid, CLEAN)))


def draft_k_plan(
    steps: int,
    gradient_steps: int,
    *,
    branches: tuple[int, ...] = (1,),
    train_timesteps: int = 1000,
    offset: int = 1,
) -> Plan:
    """DRaFT-K (Clark et al., 2024): the full chain, gradient on its last K steps."""
    chain = base_plan(steps, branches=branches, train_timesteps=train_timesteps, offset=offset)
    if not 1 <= gradient_steps <= steps:
        raise PlanError(
            "method.gradient_steps",
            f"{gradient_steps} of {steps} steps cannot carry gradient",
            f"Use 1 to {steps}",
        )
    return _attach(chain, first=steps - gradient_steps)


def inference_plan(
    steps: int, segments: int, *, train_timesteps: int = 1000, offset: int = 1
) -> Plan:
    """The chain that a tuned model serves: all N steps, each with the branches of its segment."""
    grid = ddim_grid(steps, train_timesteps, offset)
    return tuple(
        Evaluation(t, s, branches=branches)
        for (t, s), branches in zip(
            pairwise((*grid, CLEAN)), _stacks(segment_indices(steps, segments)), strict=True
        )
    )


def plan(
    steps: int,
    segments: int,
    stage: int,
    *,
    first_segment_grad_steps: int = 1,
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
    _check_first_segment(first_segment_grad_steps, len(bounds[0]))
    full = inference_plan(steps, segments, train_timesteps=train_timesteps, offset=offset)
    attached = first_segment_grad_steps if stage == 1 else 1
    original = _attach(full[: bounds[stage - 1].stop], first=bounds[stage - 1].stop - attached)
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
    return chain


def counts(chain: Plan) -> tuple[int, int]:
    """Evaluations (with, without) gradient."""
    with_gradient = sum(evaluation.with_gradient for evaluation in chain)
    return with_gradient, len(chain) - with_gradient


def _stacks(bounds: tuple[range, ...]) -> Iterator[tuple[int, ...]]:
    """Branches per step: 1 on all of segment 1, then 1..i on the last step of segment i only."""
    for number, segment in enumerate(bounds, start=1):
        between: tuple[int, ...] = (1,) if number == 1 else ()
        for index in segment:
            is_last = index == segment.stop - 1
            yield tuple(range(1, number + 1)) if is_last else between


def _attach(chain: Plan, *, first: int) -> Plan:
    """The chain with gradient from position `first` on."""
    return tuple(
        Evaluation(e.timestep, e.next_timestep, e.denoiser, e.branches, position >= first)
        for position, e in enumerate(chain)
    )


def _shorten(segment: Plan) -> Iterator[Evaluation]:
    """One jump from the segment's first to its last step, then that step, both with gradient."""
    first, last = segment[0], segment[-1]
    if first is not last:
        yield Evaluation(first.timestep, last.timestep, "shortcut", with_gradient=True)
    yield from _attach((last,), first=0)


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
