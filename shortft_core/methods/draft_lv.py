"""DRaFT-LV (Clark et al., ICLR 2024): DRaFT-1 with its gradient averaged over noised copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, autograd

from shortft_core.methods import Batch, Outcome
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.methods.leash import Leash
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.sampling import derive_seed, initial_latents
from shortft_core.schedule import Plan, attach
from shortft_core.spec import DraftLV


class _KnownGradient(autograd.Function):
    """A value with the gradient that was found for it, in place of the graph."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, gradients: Sequence[Tensor], *_parameters: Tensor
    ) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(upstream[0] * gradient for gradient in ctx.gradients))


@dataclass
class _Mean:
    """The mean of so many losses, each differentiated as soon as it is known."""

    count: int
    parameters: Sequence[Tensor]
    _value: Tensor = field(default_factory=lambda: torch.zeros(()))
    _gradients: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._gradients = [torch.zeros_like(each) for each in self.parameters]

    def add(self, loss: Tensor) -> None:
        """Adds one of them; its graph is free afterwards."""
        share = loss / self.count
        found = autograd.grad(share, self.parameters)
        for total, gradient in zip(self._gradients, found, strict=True):
            total.add_(gradient)
        self._value = self._value + share.detach()

    def loss(self) -> Tensor:
        """The mean, differentiable once."""
        made: Tensor = _KnownGradient.apply(self._value, self._gradients, *self.parameters)  # type: ignore[no-untyped-call]
        return made


class DraftLVMethod(Backpropagation):
    """x_1^(i) = sqrt(A_1) sg(x_0) + sqrt(1 - A_1) eps_i, each denoised by one attached step."""

    def __init__(
        self, spec: DraftLV, *, model: DiffusionModel, reward: Composite, seed: int
    ) -> None:
        super().__init__(spec, model=model, reward=reward, seed=seed)
        self.noised_copies = spec.noised_copies
        self._plan = attach(self.inference_plan, first=spec.steps - 1)

    def training_plan(self, draw: int = 0) -> Plan:  # noqa: ARG002 - nothing is drawn
        """All T steps, the last one attached, then that step again for each noised copy."""
        return self._plan + self._plan[-1:] * self.noised_copies

    def loss(self, batch: Batch) -> Outcome:
        """Mean over x_0 and its n noised copies, one graph at a time; with n = 0 it is DRaFT-1."""
        leash = self._leash(batch)
        mean = _Mean(1 + self.noised_copies, self.bank.parameters(1))
        latents = self.denoising.start(batch.seeds)
        clean = self.rolling(self._plan).run(self._plan, latents, batch.prompts, batch.seeds, leash)
        verdict = self.objective(clean, batch.prompts, batch.seeds)
        mean.add(self._leashed_call(verdict.loss, leash))
        for copy in range(self.noised_copies):
            noised = self._noised(clean.detach(), batch.seeds, copy)
            again = self.denoising.run(self._plan[-1:], noised, batch.prompts, batch.seeds, leash)
            loss = self.objective(again, batch.prompts, batch.seeds).loss
            mean.add(self._leashed_call(loss, leash))
        outcome = Outcome(
            loss=mean.loss(),
            reward=verdict.reward,
            terms=verdict.terms,
            evaluations=(mean.count, len(self._plan) - 1),
        )
        return outcome if leash is None else self._with_calls_of(leash, outcome)

    def _leashed_call(self, loss: Tensor, leash: Leash | None) -> Tensor:
        """The loss of the last attached call with its distance, which keeps no graph after this."""
        if leash is None:
            return loss
        distance = leash.distances[-1]
        leash.distances[-1] = distance.detach()
        return loss + self.leash_weight * distance

    def _noised(self, clean: Tensor, seeds: tuple[int, ...], copy: int) -> Tensor:
        """The clean latents at the noise level of the last timestep of the grid, not at 0."""
        signal: float = self.model.alphas_cumprod[self._plan[-1].timestep].item()
        drawn = [derive_seed(seed, "noised", copy) for seed in seeds]
        noise = initial_latents(drawn, tuple(clean.shape[1:])).to(clean)
        return math.sqrt(signal) * clean + math.sqrt(1 - signal) * noise


def build(spec: DraftLV, *, model: DiffusionModel, reward: Composite, seed: int) -> DraftLVMethod:
    """The method of `type: draft_lv`."""
    return DraftLVMethod(spec, model=model, reward=reward, seed=seed)
