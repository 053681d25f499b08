"""DDIM on a chain given as data (Song et al., 2021)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from shortft_core.schedule import PREDICTED, Evaluation

Predict = Callable[[Tensor, Evaluation], Tensor]
"""Latents and one evaluation of the chain to the predicted noise, both [B, C, h, w]."""
Observe = Callable[[Tensor, Evaluation, Tensor], None]
"""Called with the latents, the evaluation and its noise prediction after each call."""


def ddim_step(
    latents: Tensor,
    noise_prediction: Tensor,
    timestep: int,
    next_timestep: int,
    alphas_cumprod: Tensor,
) -> Tensor:
    """DDIM: x_s = a x_t + b eps, a = sqrt(A_s / A_t), b = sqrt(1 - A_s) - a sqrt(1 - A_t).

    CLEAN stands for the A of timestep 0 (`set_alpha_to_one=False`, as Stable Diffusion was
    trained), PREDICTED for A = 1, the predicted x0. Computed in at least fp32.
    """
    alpha = _signal(timestep, alphas_cumprod)
    next_alpha = _signal(next_timestep, alphas_cumprod)
    a = math.sqrt(next_alpha / alpha)
    b = math.sqrt(1 - next_alpha) - a * math.sqrt(1 - alpha)
    precision = torch.promote_types(latents.dtype, torch.float32)
    return a * latents.to(precision) + b * noise_prediction.to(precision)


def stochastic_ddim_step(
    latents: Tensor,
    noise_prediction: Tensor,
    evaluation: Evaluation,
    noise: Tensor,
    alphas_cumprod: Tensor,
) -> Tensor:
    """DDIM's equation 12: sigma = eta sqrt((1 - A_s) / (1 - A_t)) sqrt(1 - A_t / A_s).

    Eta 1 is ancestral sampling, the posterior of DDPM on the chain's own grid.
    """
    alpha = _signal(evaluation.timestep, alphas_cumprod)
    next_alpha = _signal(evaluation.next_timestep, alphas_cumprod)
    variance = (1 - next_alpha) / (1 - alpha) * (1 - alpha / next_alpha)
    sigma = evaluation.eta * math.sqrt(variance)
    a = math.sqrt(next_alpha / alpha)
    b = math.sqrt(1 - next_alpha - sigma**2) - a * math.sqrt(1 - alpha)
    precision = torch.promote_types(latents.dtype, torch.float32)
    mean = a * latents.to(precision) + b * noise_prediction.to(precision)
    return mean + sigma * noise.to(precision)


def _signal(timestep: int, alphas_cumprod: Tensor) -> float:
    """A of a timestep; of timestep 0 for CLEAN, 1 for PREDICTED."""
    return 1.0 if timestep == PREDICTED else alphas_cumprod[max(timestep, 0)].item()


def run_chain(
    plan: Sequence[Evaluation],
    latents: Tensor,
    predict: Predict,
    alphas_cumprod: Tensor,
    *,
    seeds: Sequence[int] = (),
    gradient_checkpointing: bool = False,
    observe: Observe | None = None,
) -> Tensor:
    """Runs every evaluation of the plan; a noise prediction without gradient is a constant.

    The latents are differentiated along the whole chain, from the first attached evaluation on.
    Inside `torch.no_grad()` nothing is attached, whatever the plan says. Steps with eta > 0 draw
    their noise from (seed, timestep). Checkpointing recomputes each attached call in the backward
    pass, with the branches it ran with.
    """
    allowed = torch.is_grad_enabled()
    for evaluation in plan:
        seen = latents.detach() if evaluation.detach_input else latents
        with torch.set_grad_enabled(allowed and evaluation.with_gradient):
            if gradient_checkpointing and torch.is_grad_enabled():
                noise_prediction = checkpoint(predict, seen, evaluation, use_reentrant=False)
            else:
                noise_prediction = predict(seen, evaluation)
        if observe is not None:
            observe(seen, evaluation, noise_prediction)
        latents = _step(latents, noise_prediction, evaluation, alphas_cumprod, seeds)
    return latents


def _step(
    latents: Tensor,
    noise_prediction: Tensor,
    evaluation: Evaluation,
    alphas_cumprod: Tensor,
    seeds: Sequence[int],
) -> Tensor:
    if evaluation.eta == 0:
        return ddim_step(
            latents,
            noise_prediction,
            evaluation.timestep,
            evaluation.next_timestep,
            alphas_cumprod,
        )
    noise = step_noise(seeds, evaluation.timestep, latents)
    return stochastic_ddim_step(latents, noise_prediction, evaluation, noise, alphas_cumprod)


def step_noise(seeds: Sequence[int], timestep: int, like: Tensor) -> Tensor:
    """Standard normal noise of one step; that of image i follows from its seed and the timestep."""
    return initial_latents(
        [derive_seed(seed, "step", timestep) for seed in seeds], tuple(like.shape[1:])
    ).to(like)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, the same on every machine."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def initial_latents(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal latents [B, C, h, w]; image i depends on seed i alone, not on its batch."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
