"""DRTune (Wu et al., ECCV 2024): deep rewards through constant denoiser inputs."""

from __future__ import annotations

import random

from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Plan, drtune_plan, drtune_starts, drtune_steps
from shortft_core.spec import DRTune


class DRTuneMethod(Backpropagation):
    """K equally spaced steps from a random start; no nested denoiser Jacobian anywhere."""

    def __init__(
        self, spec: DRTune, *, model: DiffusionModel, reward: Composite, seed: int
    ) -> None:
        super().__init__(spec, model=model, reward=reward, seed=seed)
        self.trained_steps, self.early_stop = spec.trained_steps, spec.early_stop

    def training_plan(self, draw: int = 0) -> Plan:
        """The chain with this draw's trained steps and, with early stopping, its last step."""
        steps, rng = len(self.inference_plan), random.Random(draw)
        start = rng.randint(1, drtune_starts(steps, self.trained_steps))
        stop = rng.randint(1, self.early_stop) if self.early_stop else None
        trained = drtune_steps(steps, self.trained_steps, start)
        return drtune_plan(self.inference_plan, trained, stop)


def build(spec: DRTune, *, model: DiffusionModel, reward: Composite, seed: int) -> DRTuneMethod:
    """The method of `type: drtune`."""
    return DRTuneMethod(spec, model=model, reward=reward, seed=seed)
