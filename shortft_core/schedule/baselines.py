"""The chains of the methods that ShortFT is measured against, made from a chain without tuning."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from shortft_core.errors import PlanError
from shortft_core.schedule.chain import (
    CLEAN,
    PREDICTED,
    Evaluation,
    Plan,
    attach,
    base_plan,
    ddim_grid,
    segment_indices,
)

Spacing = Literal["segments", "trailing"]


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
    return attach(chain, first=steps - gradient_steps)


def drtune_steps(steps: int, trained: int, start: int) -> tuple[int, ...]:
    """DRTune's trained steps s + i floor(T / K), counted from T at pure noise down to 1.

    `start` lies in 1..`drtune_starts`; raises PlanError outside it, or for K outside 1..T.
    """
    if not 1 <= start <= drtune_starts(steps, trained):
        raise PlanError(
            "start", f"{start} leaves no room for {trained} of {steps} steps", "Draw another"
        )
    return tuple(start + index * (steps // trained) for index in range(trained))


def drtune_starts(steps: int, trained: int) -> int:
    """The largest start s of DRTune: T - (K - 1) floor(T / K)."""
    if not 1 <= trained <= steps:
        raise PlanError(
            "method.trained_steps",
            f"{trained} of {steps} steps cannot be trained",
            f"Use 1 to {steps}",
        )
    return steps - (trained - 1) * (steps // trained)


def drtune_plan(chain: Plan, trained: Collection[int], stop: int | None = None) -> Plan:
    """DRTune (Wu et al., 2024): the denoiser's input is a constant, and K steps are trained.

    `trained` and `stop` count from T at pure noise down to 1; at `stop` the chain ends in one jump
    to the predicted x0. The latents carry gradient along all of it.
    """
    numbered = zip(range(len(chain), 0, -1), chain, strict=True)
    tuned = [
        replace(e, with_gradient=number in trained, detach_input=True)
        for number, e in numbered
        if stop is None or number >= stop
    ]
    if stop is not None:
        tuned[-1] = replace(tuned[-1], next_timestep=PREDICTED)
    return tuple(tuned)


def alignprop_plan(chain: Plan, kept: Sequence[bool]) -> Plan:
    """AlignProp (Prabhudesai et al., 2023): noise predictions of cut steps are constants."""
    return tuple(replace(e, with_gradient=keep) for e, keep in zip(chain, kept, strict=True))


def refl_plan(chain: Plan, mid: int) -> Plan:
    """ReFL (Xu et al., 2023): `mid` ancestral steps as constants, then one attached jump to x0."""
    if not 0 <= mid < len(chain):
        raise PlanError(
            "method.first_mid_step",
            f"step {mid} of {len(chain)} does not exist",
            f"Use 0 to {len(chain) - 1}",
        )
    rollout = tuple(replace(evaluation, eta=1.0) for evaluation in chain[:mid])
    return *rollout, replace(chain[mid], next_timestep=PREDICTED, with_gradient=True)


def few_step_plan(
    segments: int,
    *,
    spacing: Spacing,
    steps: int = 50,
    branches: tuple[int, ...] = (),
    train_timesteps: int = 1000,
    offset: int = 1,
) -> Plan:
    """The whole chain of a few-step generator: one call per segment, from noise to image.

    `segments` starts at the first step of each segment of the N-step grid, as our distillation
    does; `trailing` at T - 1 - i T / k, as the cards of Hyper-SD and DDIM's trailing spacing do.
    """
    if spacing == "trailing":
        starts = [round(train_timesteps * part / segments) - 1 for part in range(segments, 0, -1)]
    else:
        grid = ddim_grid(steps, train_timesteps, offset)
        starts = [grid[segment.start] for segment in segment_indices(steps, segments)]
    return tuple(Evaluation(t, s, branches=branches) for t, s in pairwise((*starts, CLEAN)))
