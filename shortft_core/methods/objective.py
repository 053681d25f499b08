"""From clean latents to the reward, differentiably: what all back-propagation methods end with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shortft_core.methods import Outcome
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite


def straight_through_clamp(images: Tensor) -> Tensor:
    """Values in [0, 1], gradient of the identity: saturated pixels keep learning."""
    return images + (images.clamp(0, 1) - images).detach()


def reward_outcome(
    latents: Tensor, prompts: Sequence[str], *, model: DiffusionModel, reward: Composite
) -> Outcome:
    """Loss -mean r(decode(x0), c) with its raw terms; the gradient reaches the latents."""
    images = straight_through_clamp(model.decode(latents))
    terms = reward.terms(images, prompts)
    total = reward.weighted_sum(terms)
    detached = {name: term.detach() for name, term in terms.items()}
    return Outcome(loss=-torch.mean(total), reward=total.detach(), terms=detached)
