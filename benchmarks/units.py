"""The cost model of the evaluation counts: what a training image costs in denoiser forwards."""

from __future__ import annotations

from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.schedule import forward_units


def units_made(method: Backpropagation, draw: int, without_gradient: float | None = None) -> float:
    """Units per image of the chain that `draw` gives, in the method's stage.

    `without_gradient` is how many calls without gradient were really made, where a prefix pool
    spared some; they are calls of the base model, for a jump always carries gradient.
    """
    denoising = method.denoising
    plan = method.training_plan(draw)
    spared = 0.0
    if without_gradient is not None:
        spared = sum(not evaluation.with_gradient for evaluation in plan) - without_gradient
    shortcut = 1.0 if denoising.shortcut is None else denoising.shortcut.guidance_scale
    whole = forward_units(
        plan,
        denoising.guidance_scale,
        shortcut_guidance=shortcut,
        gradient_checkpointing=denoising.gradient_checkpointing,
    )
    return whole - spared * (1 if denoising.guidance_scale == 1.0 else 2)
