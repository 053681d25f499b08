"""Which jumps a distillation learns, and the noise that makes each of them exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from shortft_core import schedule
from shortft_core.models import DiffusionModel
from shortft_core.sampling import ddim_step
from shortft_core.schedule import CLEAN, Plan
from shortft_core.spec.distil import DistilSpec

Jump = tuple[int, int]
"""Timestep before and after; the latter may be CLEAN."""


def shortened_chain(spec: DistilSpec, model: DiffusionModel) -> Plan:
    """The chain that the jumps serve, jumps marked: ShortFT's stage 1, or one call per segment."""
    train_timesteps, offset = model.train_timesteps, model.steps_offset
    if spec.few_step:
        return schedule.few_step_plan(
            spec.segments,
            spacing="segments",
            steps=spec.steps,
            train_timesteps=train_timesteps,
            offset=offset,
        )
    return schedule.plan(
        spec.steps, spec.segments, 1, train_timesteps=train_timesteps, offset=offset
    )


def jumps_of(spec: DistilSpec, model: DiffusionModel) -> tuple[Jump, ...]:
    """The pairs (t, s) to learn, noisiest first."""
    chain = shortened_chain(spec, model)
    if spec.few_step:
        return tuple((e.timestep, e.next_timestep) for e in chain)
    return schedule.jumps(chain)


def kept_times(jumps: Sequence[Jump]) -> tuple[int, ...]:
    """The times whose states are needed: both ends of every jump, and the image at the end."""
    return tuple(sorted({time for jump in jumps for time in jump} | {CLEAN}, reverse=True))


def recorded_grid(grid: Sequence[int], times: Sequence[int], stride: int = 1) -> tuple[int, ...]:
    """Every `stride`-th timestep of the grid, begun anew at each of `times`, which are all in it.

    Stride 1 is the chain itself. DDIM is of first order: a jump of 12 steps that is recorded in 4
    is about (1/4 - 1/12) of its naive error away from the chain.
    """
    wanted = {0, *(grid.index(time) for time in times if time != CLEAN)}
    borders = (*sorted(wanted), len(grid))
    return tuple(grid[i] for start, stop in pairwise(borders) for i in range(start, stop, stride))


def exact_noise(start: Tensor, end: Tensor, jump: Jump, alphas_cumprod: Tensor) -> Tensor:
    """The prediction eps for which DDIM lands on `end`: (x_s - a x_t) / b, in at least fp32.

    Its error is that of x_s over |b|, so jumps of any length weigh alike.
    """
    precision = torch.promote_types(start.dtype, torch.float32)
    start, end = start.to(precision), end.to(precision)
    without_noise = ddim_step(start, torch.zeros_like(start), *jump, alphas_cumprod)
    one = torch.ones((), dtype=precision)
    b = ddim_step(torch.zeros_like(one), one, *jump, alphas_cumprod)
    return (end - without_noise) / b


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Stored trajectories as pairs of states for each jump."""

    states: Tensor
    """[trajectories, times, C, h, w], fp16."""
    times: tuple[int, ...]
    prompt: Callable[[int], str]
    """The prompt of a trajectory."""
    alphas_cumprod: Tensor

    def at(self, rows: Sequence[int], time: int) -> Tensor:
        """States [B, C, h, w] of the trajectories at one time, fp32."""
        return self.states[list(rows), self.times.index(time)].float()

    def noise(self, rows: Sequence[int], jump: Jump) -> Tensor:
        """The noise [B, C, h, w] that makes the jump exact on these trajectories."""
        start, end = (self.at(rows, time) for time in jump)
        return exact_noise(start, end, jump, self.alphas_cumprod)

    def prompts(self, rows: Sequence[int]) -> list[str]:
        """Their prompts."""
        return [self.prompt(row) for row in rows]


@torch.no_grad()
def naive_error(
    model: DiffusionModel,
    pairs: Pairs,
    jump: Jump,
    guidance_scale: float,
    batches: Sequence[Sequence[int]],
) -> float:
    """Mean squared noise error of one guided DDIM step of the base model in place of the jump."""
    errors = []
    for rows in batches:
        predicted = model.predict_noise(
            pairs.at(rows, jump[0]).to(model.device),
            jump[0],
            model.encode_prompts(pairs.prompts(rows)),
            guidance_scale,
        )
        errors.append(predicted.cpu() - pairs.noise(rows, jump))
    return torch.cat(errors).square().mean().item()
