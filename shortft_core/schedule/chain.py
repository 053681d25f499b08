"""The records a chain is made of, the DDIM grid they lie on, and the chain without tuning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

from shortft_core.errors import PlanError

CLEAN: Final = -1
"""`next_timestep` of the last evaluation: clean latents, whose noise level is that of timestep 0.

Stable Diffusion was trained with `set_alpha_to_one=False`: the chain ends at alphas_cumprod[0].
"""
PREDICTED: Final = -2
"""`next_timestep` of a jump to the predicted x0 = (x_t - sqrt(1 - A_t) eps) / sqrt(A_t)."""

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
    """Whether the noise prediction is differentiated; the latents always are, once they carry."""
    detach_input: bool = False
    """Differentiate the weights only: the denoiser sees the latents as a constant (DRTune)."""
    detached: tuple[int, ...] = ()
    """Branches among `branches` that act without learning."""
    eta: float = 0.0
    """Noise of the step: 0 is DDIM, 1 ancestral sampling (DDPM on this grid)."""


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


def attach(chain: Plan, *, first: int) -> Plan:
    """The chain with gradient from position `first` on."""
    return tuple(
        replace(evaluation, with_gradient=position >= first)
        for position, evaluation in enumerate(chain)
    )


def counts(chain: Plan) -> tuple[int, int]:
    """Evaluations (with, without) gradient."""
    with_gradient = sum(evaluation.with_gradient for evaluation in chain)
    return with_gradient, len(chain) - with_gradient


def leash_calls(chain: Plan) -> Plan:
    """What DRaFT+'s leash asks the base model: each attached call that branches act in, once more.

    Gradient comes through latents that a branch has moved: neither in the first of them, nor where
    the input is detached.
    """
    held = [call for call in chain if call.with_gradient and call.branches]
    return tuple(
        replace(call, branches=(), with_gradient=position > 0 and not call.detach_input)
        for position, call in enumerate(held)
    )


def forward_units(
    chain: Iterable[Evaluation],
    guidance_scale: float,
    *,
    shortcut_guidance: float = 1.0,
    gradient_checkpointing: bool = False,
) -> int:
    """Cost of one image in forward passes of the denoiser, the model of docs/methods.md.

    A guided call is two, a backward pass twice its forward pass, a recomputation one more.
    """
    total = 0
    for evaluation in chain:
        scale = shortcut_guidance if evaluation.denoiser == "shortcut" else guidance_scale
        attached = 3 + gradient_checkpointing if evaluation.with_gradient else 1
        total += (1 if scale == 1.0 else 2) * attached
    return total
