"""Runs a chain on a base model, its branches and the shortcut that stands in for parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shortft_core.adapters import Stacks
from shortft_core.models import DiffusionModel
from shortft_core.sampling import Observe, initial_latents, run_chain
from shortft_core.schedule import Evaluation
from shortft_core.shortcuts import Shortcut


@dataclass(frozen=True, kw_only=True, slots=True)
class Denoising:
    """What the evaluations of a plan are run on."""

    model: DiffusionModel
    guidance_scale: float
    stacks: Stacks | None = None
    """Switches the branches that an evaluation names; None for a model without any."""
    rollout: Stacks | None = None
    """Switches them where no gradient is asked for; None: as above."""
    shortcut: Shortcut | None = None
    """Serves the evaluations of the denoiser `shortcut`."""
    gradient_checkpointing: bool = False

    def start(self, seeds: Sequence[int], size: tuple[int, int] | None = None) -> Tensor:
        """Pure noise [B, C, h, w]; seed i gives image i, whatever the batch.

        `size` is (height, width) in pixels, by default the size the model was trained for.
        """
        height, width = size or (self.model.image_size, self.model.image_size)
        # The chain stays in fp32 beside half-precision weights, in float64 beside float64 ones.
        weights = next(self.model.denoiser.parameters())
        precision = torch.promote_types(weights.dtype, torch.float32)
        latents = initial_latents(seeds, self.model.latent_shape(height, width))
        return latents.to(self.model.device, precision)

    def run(
        self,
        plan: Sequence[Evaluation],
        latents: Tensor,
        prompts: Sequence[str],
        seeds: Sequence[int],
        observe: Observe | None = None,
    ) -> Tensor:
        """Latents after the plan's last evaluation; `observe` sees every call."""
        conditioning = self.model.encode_prompts(prompts)

        def predict(latents: Tensor, evaluation: Evaluation) -> Tensor:
            return self.predict_noise(latents, evaluation, conditioning)

        return run_chain(
            plan,
            latents,
            predict,
            self.model.alphas_cumprod,
            seeds=seeds,
            gradient_checkpointing=self.gradient_checkpointing,
            observe=observe,
        )

    def predict_noise(
        self, latents: Tensor, evaluation: Evaluation, conditioning: Tensor
    ) -> Tensor:
        """Noise [B, C, h, w] that the evaluation's denoiser sees, its branches active."""
        timestep = evaluation.timestep
        if evaluation.denoiser == "shortcut":
            if self.shortcut is None:
                raise ValueError("the plan has shortcuts: give the model that serves them")
            scale = self.shortcut.guidance_scale
            return self.shortcut.model.predict_noise(latents, timestep, conditioning, scale)
        stacks = self.stacks if torch.is_grad_enabled() else self.rollout or self.stacks
        if stacks is None:
            return self.model.predict_noise(latents, timestep, conditioning, self.guidance_scale)
        with stacks.stack(evaluation.branches, evaluation.detached):
            return self.model.predict_noise(latents, timestep, conditioning, self.guidance_scale)


def denoise(
    plan: Sequence[Evaluation],
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    model: DiffusionModel,
    bank: Stacks | None,
    guidance_scale: float,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Clean latents [B, C, h, w] of the prompts on a chain without shortcuts."""
    denoising = Denoising(model=model, stacks=bank, guidance_scale=guidance_scale)
    return denoising.run(plan, denoising.start(seeds, size), prompts, seeds)
