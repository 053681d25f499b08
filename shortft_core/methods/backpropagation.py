"""What the methods that differentiate the reward share; each adds the chain it differentiates."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

import torch
from torch import Tensor

from shortft_core import catalog
from shortft_core.adapters import AdapterBank
from shortft_core.denoise import Denoising
from shortft_core.errors import UserError
from shortft_core.merged import MergedStacks
from shortft_core.methods import Batch, Outcome
from shortft_core.methods.leash import Leash
from shortft_core.methods.objective import Objective
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Plan, base_plan, counts
from shortft_core.shortcuts import Shortcut
from shortft_core.spec import AnyMethod, resolved


class Levels(TypedDict):
    """The noise levels of a model, as the plans of `schedule` take them."""

    train_timesteps: int
    offset: int


class Backpropagation:
    """One branch on every step of the full chain; a subclass says which calls are attached."""

    def __init__(
        self,
        spec: AnyMethod,
        *,
        model: DiffusionModel,
        reward: Composite,
        seed: int,
        branches: int = 1,
        shortcut: Shortcut | None = None,
    ) -> None:
        self.model = model
        self.guidance_scale = resolved(spec.guidance_scale, "guidance_scale")
        spec = catalog.with_preset(spec)
        self.shortcut = shortcut
        self.few_step: Shortcut | None = None
        self.leash_weight = spec.leash or 0.0
        self.merged_rollouts = spec.merged_rollouts
        _refuse_rounding(model, merged=spec.merged_rollouts)
        self.levels = Levels(train_timesteps=model.train_timesteps, offset=model.steps_offset)
        rank = resolved(spec.rank, "rank")
        self.bank = AdapterBank(model.denoiser, branches=branches, rank=rank, seed=seed)
        threshold = spec.reward_threshold if isinstance(spec.reward_threshold, float) else None
        self.objective = Objective(
            model=model, reward=reward, threshold=threshold, crop_margin=spec.crop_margin or 0.0
        )
        self.denoising = Denoising(
            model=model,
            guidance_scale=self.guidance_scale,
            stacks=self.bank,
            shortcut=shortcut,
            gradient_checkpointing=spec.gradient_checkpointing,
        )
        self.inference_plan = base_plan(spec.steps, branches=(1,), **self.levels)
        self.stage_shares: tuple[float, ...] = (1.0,)
        self.enter_stage(1)

    def enter_stage(self, stage: int) -> None:
        """Trains exactly the branches of the stage."""
        self.stage = stage
        self.bank.train_only(self.trained_branches())

    def training_plan(self, draw: int = 0) -> Plan:  # noqa: ARG002 - most methods draw nothing
        """The chain of one training image."""
        return self.inference_plan

    def trained_branches(self) -> tuple[int, ...]:
        """The only branch."""
        return (1,)

    def image_pool(self) -> int:
        """Every image is new."""
        return 0

    def loss(self, batch: Batch) -> Outcome:
        """-mean r(x0(theta), c) through the attached evaluations, the VAE and the reward."""
        return self._end(batch, self.training_plan(batch.draw), self.denoising.start(batch.seeds))

    def rolling(self, plan: Plan) -> Denoising:
        """Runs the plan; its calls without gradient on weights merged now, if that is asked for."""
        if not self.merged_rollouts:
            return self.denoising
        stacks = {evaluation.branches for evaluation in plan if not evaluation.with_gradient}
        return replace(self.denoising, rollout=MergedStacks(self.bank, stacks))

    def _end(self, batch: Batch, plan: Plan, latents: Tensor) -> Outcome:
        """Runs the plan from these latents to the loss."""
        leash = self._leash(batch)
        clean = self.rolling(plan).run(plan, latents, batch.prompts, batch.seeds, leash)
        verdict = self.objective(clean, batch.prompts, batch.seeds)
        outcome = Outcome(verdict.loss, verdict.reward, verdict.terms, counts(plan))
        return outcome if leash is None else self._leashed(outcome, leash)

    def _leash(self, batch: Batch) -> Leash | None:
        if not self.leash_weight:
            return None
        return Leash(self.denoising, self.model.encode_prompts(batch.prompts))

    def _leashed(self, outcome: Outcome, leash: Leash) -> Outcome:
        loss = outcome.loss + self.leash_weight * leash.mean()
        return replace(self._with_calls_of(leash, outcome), loss=loss)

    def _with_calls_of(self, leash: Leash, outcome: Outcome) -> Outcome:
        """The outcome with the leash's evaluations and its distance among the statistics."""
        with_gradient, without = outcome.evaluations
        cut = len(leash.distances) - leash.attached
        return replace(
            outcome,
            evaluations=(with_gradient + leash.attached, without + cut),
            statistics={**outcome.statistics, "leash": leash.mean().item()},
        )


def _refuse_rounding(model: DiffusionModel, *, merged: bool) -> None:
    """bf16 keeps 8 bits: what is much smaller than the weight that it is added to is lost."""
    precision = next(model.denoiser.parameters()).dtype
    if merged and precision in {torch.float16, torch.bfloat16}:
        raise UserError(
            "method.merged_rollouts",
            f"the base weights are {precision}, which rounds small branches away",
            "Set it to false, or precision to fp32",
        )
