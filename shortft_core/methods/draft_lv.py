"""DRaFT-LV (Clark et al., ICLR 2024): DRaFT-1 with its gradient averaged over noised copies."""

from __future__ import annotations

import math
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


class _Held(autograd.Function):
    """A value whose gradient is known already, in place of the graph that it came from."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *parameters_and_gradients: Tensor) -> Tensor:
        ctx.gradients = parameters_and_gradients[len(parameters_and_gradients) // 2 :]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        known = tuple(upstream[0] * gradient for gradient in ctx.gradients)
        return (None, *known, *(None for _ in known))


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
        latents = self.denoising.start(batch.seeds)
        clean = self.rolling(self._plan).run(self._plan, latents, batch.prompts, batch.seeds, leash)
        verdict = self.objective(clean, batch.prompts, batch.seeds)
        losses = [self._differentiated(verdict.loss, leash)]
        for copy in range(self.noised_copies):
            noised = self._noised(clean.detach(), batch.seeds, copy)
            again = self.denoising.run(self._plan[-1:], noised, batch.prompts, batch.seeds, leash)
            loss = self.objective(again, batch.prompts, batch.seeds).loss
            losses.append(self._differentiated(loss, leash))
        outcome = Outcome(
            loss=torch.stack(losses).mean(),
            reward=verdict.reward,
            terms=verdict.terms,
            evaluations=(len(losses), len(self._plan) - 1),
        )
        return outcome if leash is None else self._with_calls_of(leash, outcome)

    def _differentiated(self, loss: Tensor, leash: Leash | None) -> Tensor:
        """The loss of one attached call and its leash, with the gradient for its graph."""
        if leash is not None:
            loss = loss + self.leash_weight * leash.distances[-1]
            leash.distances[-1] = leash.distances[-1].detach()
        parameters = self.bank.parameters(1)
        gradients = autograd.grad(loss, parameters)
        held: Tensor = _Held.apply(loss.detach(), *parameters, *gradients)  # type: ignore[no-untyped-call]
        return held

    def _noised(self, clean: Tensor, seeds: tuple[int, ...], copy: int) -> Tensor:
        """The clean latents at the noise level of the last timestep of the grid, not at 0."""
        signal: float = self.model.alphas_cumprod[self._plan[-1].timestep].item()
        drawn = [derive_seed(seed, "noised", copy) for seed in seeds]
        noise = initial_latents(drawn, tuple(clean.shape[1:])).to(clean)
        return math.sqrt(signal) * clean + math.sqrt(1 - signal) * noise


def build(spec: DraftLV, *, model: DiffusionModel, reward: Composite, seed: int) -> DraftLVMethod:
    """The method of `type: draft_lv`."""
    return DraftLVMethod(spec, model=model, reward=reward, seed=seed)
