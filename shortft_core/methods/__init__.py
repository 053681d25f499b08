"""Tuning methods: each turns a batch of prompts and seeds into a loss, one file per method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from shortft_core import catalog
from shortft_core.adapters import AdapterBank
from shortft_core.methods.objective import Objective
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Evaluation
from shortft_core.shortcuts import Shortcut
from shortft_core.spec import AnyMethod


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass is asked for."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    draw: int = 0
    """Seed of what all images of all processes draw in common, such as DRTune's first step."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method found for one batch."""

    loss: Tensor
    """Scalar to minimise."""
    reward: Tensor
    """Weighted sum per image [B], detached."""
    terms: Mapping[str, Tensor]
    """Each reward term, raw, per image [B], detached."""
    evaluations: tuple[int, int]
    """Denoiser calls made per image (with, without) gradient; a guided call counts once."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """What else the method measured, by name."""


class Method(Protocol):
    """A way to move the reward into the branches of a bank."""

    model: DiffusionModel
    """The model that the bank sits on: the base, or a few-step model made from it."""
    bank: AdapterBank
    shortcut: Shortcut | None
    """What stands for parts of its training chain."""
    few_step: Shortcut | None
    """The few-step model it tunes in place of the base model."""
    objective: Objective
    guidance_scale: float
    inference_plan: tuple[Evaluation, ...]
    """The chain that the tuned model serves."""
    stage_shares: tuple[float, ...]
    """Share of the updates that each stage gets; (1.0,) for a method without stages."""
    stage: int
    """Stage it is in, from 1."""

    def enter_stage(self, stage: int) -> None:
        """Freezes and trains what belongs to the stage; counted from 1."""
        ...

    def training_plan(self, draw: int = 0) -> tuple[Evaluation, ...]:
        """The chain of one training image in this stage, for what `draw` decides by chance."""
        ...

    def trained_branches(self) -> tuple[int, ...]:
        """Branches that the optimizer moves in this stage."""
        ...

    def image_pool(self) -> int:
        """Images whose prefixes are reused in this stage; 0 draws every image anew."""
        ...

    def loss(self, batch: Batch) -> Outcome:
        """Differentiable loss of the batch."""
        ...


def build(spec: AnyMethod, *, model: DiffusionModel, reward: Composite, seed: int) -> Method:
    """The method of a resolved specification, attached to the model."""
    entry = catalog.find(catalog.METHODS, spec.type, "method.type")
    method: Method = catalog.load(entry.target)(spec, model=model, reward=reward, seed=seed)
    return method
