"""Deterministic DDIM on a chain given as data (Song et al., 2021, eta = 0)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shortft_core.schedule import Evaluation

Predict = Callable[[Tensor, Evaluation], Tensor]
"""Latents and one evaluation of the chain to the predicted noise, both [B, C, h, w]."""


def ddim_step(
    latents: Tensor,
    noise_prediction: Tensor,
    timestep: int,
    next_timestep: int,
    alphas_cumprod: Tensor,
) -> Tensor:
    """DDIM: x_s = a x_t + b eps, a = sqrt(A_s / A_t), b = sqrt(1 - A_s) - a sqrt(1 - A_t).

    A negative `next_timestep` means clean latents, whose A is that of timestep 0
    (`set_alpha_to_one=False`, as Stable Diffusion was trained). Computed in at least fp32.
    """
    alpha, next_alpha = (
        alphas_cumprod[timestep].item(),
        alphas_cumprod[max(next_timestep, 0)].item(),
    )
    a = math.sqrt(next_alpha / alpha)
    b = math.sqrt(1 - next_alpha) - a * math.sqrt(1 - alpha)
    precision = torch.promote_types(latents.dtype, torch.float32)
    return a * latents.to(precision) + b * noise_prediction.to(precision)


def run_chain(
    plan: Sequence[Evaluation], latents: Tensor, predict: Predict, alphas_cumprod: Tensor
) -> Tensor:
    """Runs every evaluation of the plan; the graph starts at the first one that asks for it.

    Inside `torch.no_grad()` nothing is attached, whatever the plan says.
    """
    allowed = torch.is_grad_enabled()
    for evaluation in plan:
        with torch.set_grad_enabled(allowed and evaluation.with_gradient):
            noise_prediction = predict(latents, evaluation)
            latents = ddim_step(
                latents,
                noise_prediction,
                evaluation.timestep,
                evaluation.next_timestep,
                alphas_cumprod,
            )
    return latents


def initial_latents(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal latents [B, C, h, w]; image i depends on seed i alone, not on its batch."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
