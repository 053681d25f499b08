"""From clean latents to the loss: what all back-propagation methods end with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.sampling import derive_seed


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reward of a batch and the loss that raises it."""

    loss: Tensor
    """Scalar."""
    reward: Tensor
    """Weighted sum per image [B], detached."""
    terms: Mapping[str, Tensor]
    """Raw terms per image [B], detached."""


@dataclass(kw_only=True)
class Objective:
    """Loss -mean r(decode(x0), c), with the leashes that keep it from being hacked."""

    model: DiffusionModel
    reward: Composite
    threshold: float | None = None
    """Images above it no longer count: loss relu(threshold - r)."""
    crop_margin: float = 0.0
    """Share of each side that a random crop leaves out."""

    def __call__(self, latents: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Verdict:
        """The loss of clean latents [B, C, h, w]; its gradient reaches them."""
        images = straight_through_clamp(self.model.decode(latents))
        terms = self.reward.terms(random_crop(images, seeds, self.crop_margin), prompts)
        total = self.reward.weighted_sum(terms)
        detached = {name: term.detach() for name, term in terms.items()}
        return Verdict(self._loss(total), total.detach(), detached)

    def _loss(self, reward: Tensor) -> Tensor:
        if self.threshold is None:
            return -reward.mean()
        return torch.relu(self.threshold - reward).mean()


def straight_through_clamp(images: Tensor) -> Tensor:
    """Values in [0, 1], gradient of the identity: saturated pixels keep learning."""
    return images + (images.clamp(0, 1) - images).detach()


def random_crop(images: Tensor, seeds: Sequence[int], margin: float) -> Tensor:
    """A window of each image [B, 3, H, W] without `margin` of its sides, where its seed puts it."""
    height, width = images.shape[-2:]
    rows, columns = round(margin * height), round(margin * width)
    if not rows and not columns:
        return images
    windows = []
    for image, seed in zip(images, seeds, strict=True):
        top = derive_seed(seed, "crop", "top") % (rows + 1)
        left = derive_seed(seed, "crop", "left") % (columns + 1)
        windows.append(image[:, top : top + height - rows, left : left + width - columns])
    return torch.stack(windows)
