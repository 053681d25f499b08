"""AlignProp (Prabhudesai et al., 2023): the full chain with randomly truncated gradients."""

from __future__ import annotations

import random

from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Plan, alignprop_plan
from shortft_core.spec import AlignProp


class AlignPropMethod(Backpropagation):
    """The latents carry gradient along the whole chain; noise predictions are cut by chance."""

    def __init__(
        self, spec: AlignProp, *, model: DiffusionModel, reward: Composite, seed: int
    ) -> None:
        super().__init__(spec, model=model, reward=reward, seed=seed)
        self.cut, self.cut_step = spec.cut, spec.cut_step

    def training_plan(self, draw: int = 0) -> Plan:
        """The full chain; step i is attached if its cut lies at or before i."""
        steps, rng = len(self.inference_plan), random.Random(draw)
        if self.cut == "per_step":
            kept = [step >= rng.randint(0, steps) for step in range(steps)]
        else:
            cut = self._one_cut(rng, steps)
            kept = [step >= cut for step in range(steps)]
        # The published code may cut every step, which trains nothing: the last one stays.
        kept[-1] = kept[-1] or not any(kept)
        return alignprop_plan(self.inference_plan, kept)

    def _one_cut(self, rng: random.Random, steps: int) -> int:
        if self.cut == "per_batch":
            return rng.randint(0, steps - 1)
        return steps - 1 if self.cut_step is None else self.cut_step


def build(
    spec: AlignProp, *, model: DiffusionModel, reward: Composite, seed: int
) -> AlignPropMethod:
    """The method of `type: alignprop`."""
    return AlignPropMethod(spec, model=model, reward=reward, seed=seed)
