"""ReFL (Xu et al., NeurIPS 2023): one late random step is trained through its predicted x0."""

from __future__ import annotations

import random
from dataclasses import replace

from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Plan, base_plan, refl_plan
from shortft_core.spec import ReFL


class ReFLMethod(Backpropagation):
    """`mid` ancestral steps as constants, one attached call at index mid, closed-form x0."""

    def __init__(self, spec: ReFL, *, model: DiffusionModel, reward: Composite, seed: int) -> None:
        super().__init__(spec, model=model, reward=reward, seed=seed)
        self.mid_steps = (spec.first_mid_step, spec.last_mid_step)
        self._chain = base_plan(spec.training_steps, branches=(1,), **self.levels)
        self.denoising = replace(self.denoising, guidance_scale=spec.training_guidance_scale)

    def training_plan(self, draw: int = 0) -> Plan:
        """The chain up to the drawn step, which is uniform over the range."""
        return refl_plan(self._chain, random.Random(draw).randint(*self.mid_steps))


def build(spec: ReFL, *, model: DiffusionModel, reward: Composite, seed: int) -> ReFLMethod:
    """The method of `type: refl`."""
    return ReFLMethod(spec, model=model, reward=reward, seed=seed)
