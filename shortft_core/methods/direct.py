"""Direct tuning of a few-step model (ShortFT, Table 2): the control that needs no long chain."""

from __future__ import annotations

from shortft_core import shortcuts
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.schedule import Plan, attach, few_step_plan, refuse_untrained_jumps
from shortft_core.spec import Direct, resolved


class DirectMethod(Backpropagation):
    """A branch on the merged few-step model; all k calls attached, no guidance, no truncation."""

    def __init__(
        self, spec: Direct, *, model: DiffusionModel, reward: Composite, seed: int
    ) -> None:
        source = resolved(spec.few_step, "few_step")
        few_step = shortcuts.few_step(source, model, segments=spec.segments)
        super().__init__(spec, model=few_step.model, reward=reward, seed=seed)
        self.few_step = few_step
        self.inference_plan = few_step_plan(
            spec.segments,
            spacing=few_step.spacing,
            steps=spec.steps,
            branches=(1,),
            **self.levels,
        )
        if few_step.jumps is not None:
            made = [(e.timestep, e.next_timestep) for e in self.inference_plan]
            refuse_untrained_jumps(made, few_step.jumps, "method.few_step")

    def training_plan(self, draw: int = 0) -> Plan:  # noqa: ARG002 - nothing is drawn
        """The same k calls that inference makes, with gradient."""
        return attach(self.inference_plan, first=0)


def build(spec: Direct, *, model: DiffusionModel, reward: Composite, seed: int) -> DirectMethod:
    """The method of `type: direct`."""
    return DirectMethod(spec, model=model, reward=reward, seed=seed)
