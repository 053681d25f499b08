"""The cost model of the evaluation counts: what a training image costs in denoiser forwards."""

from __future__ import annotations

from collections.abc import Iterable

from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.schedule import Evaluation


def units(
    plan: Iterable[Evaluation],
    *,
    guidance_scale: float,
    shortcut_guidance: float = 1.0,
    gradient_checkpointing: bool = False,
) -> int:
    """Forwards per image: a guided call is 2, a backward 2 forwards, a recomputation 1 more."""
    total = 0
    for evaluation in plan:
        scale = shortcut_guidance if evaluation.denoiser == "shortcut" else guidance_scale
        forwards = 1 if scale == 1.0 else 2
        attached = 3 + gradient_checkpointing if evaluation.with_gradient else 1
        total += forwards * attached
    return total


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
    whole = units(
        plan,
        guidance_scale=denoising.guidance_scale,
        shortcut_guidance=shortcut,
        gradient_checkpointing=denoising.gradient_checkpointing,
    )
    return whole - spared * (1 if denoising.guidance_scale == 1.0 else 2)
