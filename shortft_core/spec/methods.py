"""The methods a job may name: one class per method, chosen by `type`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from shortft_core.spec.common import Spec


class Method(Spec):
    """What every method needs: chain, adapter, length and optimizer."""

    steps: int = Field(default=50, ge=1, le=999)
    """Length of the DDIM chain; an adapter serves only the grid it was trained on."""
    guidance_scale: float | None = Field(default=None, ge=1.0)
    """Classifier-free guidance; by default the base model's own."""
    rank: int = Field(default=16, ge=1)
    """LoRA rank; alpha equals it, so the scale is always 1."""
    updates: int | None = Field(default=None, ge=1)
    """Optimizer updates; give this or `seconds`."""
    seconds: float | None = Field(default=None, gt=0)
    """Training time; three calibration updates turn it into `updates` once."""
    batch_size: int = Field(default=4, ge=1)
    """Images in memory at once."""
    accumulation: int = Field(default=1, ge=1)
    """Batches per update."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak of AdamW; 1e-3 suits rank 16 on `shapes`, 1e-4 rank 128 on SD 1.5."""
    warmup_updates: int = Field(default=0, ge=0)
    """Linear warm-up of the learning rate."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """AdamW's decoupled decay of the branch weights."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient norm at which each branch is clipped."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Updates between checkpoints."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.updates is not None and self.seconds is not None:
            raise ValueError("give updates or seconds, not both")
        return self


class DraftK(Method):
    """DRaFT-K (Clark et al., ICLR 2024): reward gradient through the last K denoising steps."""

    type: Literal["draft_k"] = "draft_k"
    gradient_steps: int = Field(default=1, ge=1)
    """K of the paper: attached steps at the end of the chain; K = steps is full DRaFT."""

    @model_validator(mode="after")
    def _k_within_chain(self) -> Self:
        if self.gradient_steps > self.steps:
            raise ValueError(f"gradient_steps cannot exceed steps ({self.steps})")
        return self


AnyMethod = DraftK
"""Becomes a union chosen by `type` with the second method."""
