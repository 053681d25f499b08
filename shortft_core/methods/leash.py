"""DRaFT+'s leash: how far the attached noise predictions have moved from the base model's."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from shortft_core.denoise import Denoising
from shortft_core.schedule import Evaluation


@dataclass
class Leash:
    """Observes a chain and sums mean (eps_theta - eps_base)^2 over its attached base calls."""

    denoising: Denoising
    conditioning: Tensor
    distances: list[Tensor] = field(default_factory=list)
    attached: int = 0
    """How many of its own calls carry gradient."""

    def __call__(self, latents: Tensor, evaluation: Evaluation, noise_prediction: Tensor) -> None:
        """Adds one evaluation: the base model sees the same latents, attached where they are."""
        if not evaluation.branches or not noise_prediction.requires_grad:
            return
        # Latents that depend on the branches reach the base model's prediction too.
        with torch.set_grad_enabled(latents.requires_grad):
            base = self._base(latents, evaluation.timestep)
        self.attached += base.requires_grad
        self.distances.append((noise_prediction - base).square().mean())

    def _base(self, latents: Tensor, timestep: int) -> Tensor:
        asked = (latents, timestep, self.conditioning, self.denoising.guidance_scale)
        predict_noise = self.denoising.model.predict_noise
        if self.denoising.gradient_checkpointing and torch.is_grad_enabled():
            prediction: Tensor = checkpoint(predict_noise, *asked, use_reentrant=False)
            return prediction
        return predict_noise(*asked)

    def mean(self) -> Tensor:
        """Mean over the attached calls; exactly 0 while the branches are zero."""
        return torch.stack(self.distances).mean()
