"""DRaFT-K (Clark et al., ICLR 2024): back-propagation through the last K denoising steps."""

from __future__ import annotations

from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Plan, draft_k_plan
from shortft_core.spec import DraftK


class DraftKMethod(Backpropagation):
    """One branch on every step; the first T - K steps run without a graph."""

    def __init__(
        self, spec: DraftK, *, model: DiffusionModel, reward: Composite, seed: int
    ) -> None:
        super().__init__(spec, model=model, reward=reward, seed=seed)
        self._plan = draft_k_plan(spec.steps, spec.gradient_steps, **self.levels)

    def training_plan(self, draw: int = 0) -> Plan:  # noqa: ARG002 - nothing is drawn
        """All T steps with branch 1; gradient on the last K."""
        return self._plan


def build(spec: DraftK, *, model: DiffusionModel, reward: Composite, seed: int) -> DraftKMethod:
    """The method of `type: draft_k`."""
    return DraftKMethod(spec, model=model, reward=reward, seed=seed)
