"""Runs a chain on a base model with the branches that each evaluation names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from shortft_core.adapters import AdapterBank
from shortft_core.models import DiffusionModel
from shortft_core.sampling import initial_latents, run_chain
from shortft_core.schedule import Evaluation


def denoise(
    plan: Sequence[Evaluation],
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    model: DiffusionModel,
    bank: AdapterBank | None,
    guidance_scale: float,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Clean latents [B, C, h, w] of the prompts; seed i gives image i, whatever the batch.

    `size` is (height, width) in pixels, by default the size the model was trained for.
    """
    conditioning = model.encode_prompts(prompts)

    def predict(latents: Tensor, evaluation: Evaluation) -> Tensor:
        if bank is None:
            return model.predict_noise(latents, evaluation.timestep, conditioning, guidance_scale)
        with bank.stack(evaluation.branches):
            return model.predict_noise(latents, evaluation.timestep, conditioning, guidance_scale)

    height, width = size or (model.image_size, model.image_size)
    # The chain stays in fp32 beside half-precision weights, and in float64 beside float64 ones.
    precision = torch.promote_types(next(model.denoiser.parameters()).dtype, torch.float32)
    latents = initial_latents(seeds, model.latent_shape(height, width))
    latents = latents.to(model.device, precision)
    return run_chain(plan, latents, predict, model.alphas_cumprod)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, the same on every machine."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
