"""ShortFT (Guo et al., ICCV 2025): reward gradient through a chain shortened by a few-step model.

Branch i belongs to the last step of segment i and sits on branches 1..i-1; stage i trains branches
i..k on a chain whose segments up to i run in full and whose later segments are jumps.
"""

from __future__ import annotations

from dataclasses import replace

from shortft_core import shortcuts
from shortft_core.methods import Batch, Outcome
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.methods.prefixes import Prefixes
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import (
    Plan,
    Readings,
    Stacking,
    counts,
    inference_plan,
    jumps,
    plan,
    refuse_untrained_jumps,
)
from shortft_core.shortcuts import Shortcut
from shortft_core.spec import ShortFT, resolved
from shortft_core.stages import default_shares


class ShortFTMethod(Backpropagation):
    """k branches, k stages, one shortcut; the last stage runs the chain that is served."""

    def __init__(
        self, spec: ShortFT, *, model: DiffusionModel, reward: Composite, seed: int
    ) -> None:
        self.spec = spec
        self.shared = spec.ablation in {"no_tlora", "no_tlora_all_steps"}
        shortcut = _shortcut(spec, model)
        super().__init__(
            spec,
            model=model,
            reward=reward,
            seed=seed,
            branches=1 if self.shared else spec.segments,
            shortcut=shortcut,
        )
        readings = _readings(spec)
        self.inference_plan = inference_plan(
            spec.steps, spec.segments, readings=readings, **self.levels
        )
        progressive = spec.ablation != "no_progressive"
        shares = spec.stage_shares or default_shares(spec.segments)
        self.stage_shares = shares if progressive else (1.0,)
        self._plans = tuple(
            plan(
                spec.steps,
                spec.segments,
                stage,
                readings=readings,
                shortcut_borders=shortcut.borders,
                **self.levels,
            )
            for stage in range(1, len(self.stage_shares) + 1)
        )
        if shortcut.jumps is not None:
            refuse_untrained_jumps(jumps(self._plans[0]), shortcut.jumps)
        self._prefixes = Prefixes()

    def training_plan(self, draw: int = 0) -> Plan:  # noqa: ARG002 - nothing is drawn
        """The chain of this stage: 7, 5, 3 and 1 attached evaluations for 50 steps and k = 4."""
        return self._plans[self.stage - 1]

    def trained_branches(self) -> tuple[int, ...]:
        """Branches i..k in stage i; the shared one of `no_tlora` always."""
        return (1,) if self.shared else tuple(range(self.stage, self.spec.segments + 1))

    def image_pool(self) -> int:
        """From stage 2 on, what comes before the gradient is constant for a prompt and seed."""
        return self.spec.prefix_pool if self.stage > 1 else 0

    def loss(self, batch: Batch) -> Outcome:
        """-mean r(x0(theta), c) on the shortened chain of this stage."""
        chain = self.training_plan()
        if not self.image_pool():
            return self._end(batch, chain, self.denoising.start(batch.seeds))
        without = counts(chain)[1]
        latents, made = self._prefixes.latents(chain[:without], batch, self.rolling)
        outcome = self._end(batch, chain[without:], latents)
        with_gradient, leashed = outcome.evaluations
        return replace(outcome, evaluations=(with_gradient, made + leashed))


def _shortcut(spec: ShortFT, model: DiffusionModel) -> Shortcut:
    """The frozen denoiser of the jumps, made before the bank is attached to the base."""
    guidance_scale = resolved(spec.guidance_scale, "guidance_scale")
    if spec.ablation == "naive_jump":
        return shortcuts.naive(model, guidance_scale)
    source = resolved(spec.shortcut, "shortcut")
    shortcut = shortcuts.load(source, model, segments=spec.segments, guidance_scale=guidance_scale)
    if spec.shortcut_guidance is None:
        return shortcut
    return replace(shortcut, guidance_scale=spec.shortcut_guidance)


def _readings(spec: ShortFT) -> Readings:
    shared: dict[str, Stacking] = {"no_tlora": "shared", "no_tlora_all_steps": "shared_all_steps"}
    return Readings(
        first_segment_grad_steps=spec.first_segment_grad_steps,
        scope=spec.scope,
        stacking=shared.get(spec.ablation, spec.stacking),
        detach_lower_branches=spec.detach_lower_branches,
    )


def build(spec: ShortFT, *, model: DiffusionModel, reward: Composite, seed: int) -> ShortFTMethod:
    """The method of `type: shortft`."""
    return ShortFTMethod(spec, model=model, reward=reward, seed=seed)
