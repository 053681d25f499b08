"""Tuning methods: each turns a batch of prompts and seeds into a loss, one file per method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from shortft_core import catalog
from shortft_core.adapters import AdapterBank
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Evaluation
from shortft_core.spec import AnyMethod


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass is asked for."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method found for one batch."""

    loss: Tensor
    """Scalar to minimise."""
    reward: Tensor
    """Weighted sum per image [B], detached."""
    terms: Mapping[str, Tensor]
    """Each reward term, raw, per image [B], detached."""


class Method(Protocol):
    """A way to move the reward into the branches of a bank."""

    bank: AdapterBank
    guidance_scale: float
    inference_plan: tuple[Evaluation, ...]
    """The chain that the tuned model serves."""

    def training_plan(self) -> tuple[Evaluation, ...]:
        """The chain of one training image, for counting and for documents."""
        ...

    def trained_branches(self) -> tuple[int, ...]:
        """Branches that the optimizer moves now."""
        ...

    def loss(self, batch: Batch) -> Outcome:
        """Differentiable loss of the batch."""
        ...


def build(spec: AnyMethod, *, model: DiffusionModel, reward: Composite, seed: int) -> Method:
    """The method of a resolved specification, attached to the model."""
    entry = catalog.find(catalog.METHODS, spec.type, "method.type")
    method: Method = catalog.load(entry.target)(spec, model=model, reward=reward, seed=seed)
    return method
