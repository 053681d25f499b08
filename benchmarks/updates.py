"""Single updates of a method on the bundled model, timed without what a run does around them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import torch
from torch import nn

from benchmarks.units import units_made
from shortft_core import catalog, methods, models, prompts, rewards
from shortft_core.methods import Batch, Outcome
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.sampling import derive_seed
from shortft_core.spec import AlignSpec, AnyMethod, AnyReward, PromptSource, Source, resolved
from shortft_core.spec.rewards import HPSv2

BASE: Final = Source(name="shapes")
PROMPTS: Final = PromptSource(name="shapes-train")
CPU: Final = torch.device("cpu")


def job(method: AnyMethod, reward: Sequence[AnyReward] = (HPSv2(),), *, seed: int = 0) -> AlignSpec:
    """The resolved job that tunes the bundled model with this method."""
    return catalog.resolve(
        AlignSpec(base_model=BASE, method=method, rewards=tuple(reward), prompts=PROMPTS, seed=seed)
    )


def build(spec: AlignSpec) -> Backpropagation:
    """The method of a resolved job, its model and reward loaded on the CPU."""
    model = models.load(spec.base_model, device=CPU, dtype=torch.float32)
    reward = rewards.build(spec.rewards, device=CPU, dtype=torch.float32)
    return attach(spec, model, reward)


def attach(spec: AlignSpec, model: DiffusionModel, reward: Composite) -> Backpropagation:
    """The method of a resolved job on models that are loaded already."""
    method = methods.build(spec.method, model=model, reward=reward, seed=spec.seed)
    return cast("Backpropagation", method)


@dataclass(frozen=True, slots=True)
class Timed:
    """What one update took."""

    seconds: float
    units: float
    """Forwards per image by the cost model."""


@dataclass
class Tuning:
    """A method and its optimizer; `update` is what the trainer does in one update of one batch."""

    spec: AlignSpec
    method: Backpropagation

    def __post_init__(self) -> None:
        options, bank = self.spec.method, self.method.bank
        branches = range(1, bank.branches + 1)
        self.optimizer = torch.optim.AdamW(
            [weight for branch in branches for weight in bank.parameters(branch)],
            lr=resolved(options.learning_rate, "learning_rate"),
            weight_decay=options.weight_decay,
        )
        self.prompts = prompts.load(self.spec.prompts).prompts

    def batch(self, number: int) -> Batch:
        """The prompts and seeds of batch `number`."""
        size, known = self.spec.method.batch_size, len(self.prompts)
        images = range(number * size, (number + 1) * size)
        return Batch(
            prompts=tuple(self.prompts[image % known] for image in images),
            seeds=tuple(derive_seed(self.spec.seed, "image", image) for image in images),
            draw=derive_seed(self.spec.seed, "draw", number),
        )

    def update(self, batch: Batch) -> Outcome:
        """Loss, backward, clipping per branch, AdamW."""
        self.optimizer.zero_grad(set_to_none=True)
        outcome = self.method.loss(batch)
        outcome.loss.backward()
        for branch in self.method.trained_branches():
            nn.utils.clip_grad_norm_(
                self.method.bank.parameters(branch), self.spec.method.max_grad_norm
            )
        self.optimizer.step()
        return outcome

    def timed(self, batch: Batch) -> Timed:
        """One update with its wall time."""
        started = time.perf_counter()
        outcome = self.update(batch)
        seconds = time.perf_counter() - started
        return Timed(seconds, units_made(self.method, batch.draw, outcome.evaluations[1]))
