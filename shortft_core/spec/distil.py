"""The specification of a distillation: which jumps of which model, and how long to train them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from shortft_core.spec.common import PromptSource, Source, Spec, identity
from shortft_core.spec.rewards import (
    MOST_REWARDS,
    AnyReward,
    Brightness,
    Colorfulness,
    Compressibility,
    Symmetry,
)


class DistilEvaluation(Spec):
    """What the acceptance report is measured on; nothing of it is trained on."""

    prompts: PromptSource | None = None
    """Held-out prompts; by default the evaluation split of the job's prompts."""
    count: int = Field(default=64, ge=2, le=100_000)
    """Held-out trajectories."""
    rewards: tuple[AnyReward, ...] = Field(
        default=(Symmetry(), Compressibility(), Brightness(), Colorfulness()),
        max_length=MOST_REWARDS,
    )
    """Judges that compare the images of both chains; by default those without weights."""


class DistilSpec(Spec):
    """One distillation of jumps, without images: the base model's own trajectories are the data."""

    kind: Literal["distil"] = "distil"
    """What is made: a shortcut, or a few-step generator."""
    base_model: Source
    """The text-to-image model whose chain is shortened."""
    segments: int = Field(default=4, ge=1)
    """Parts k of the chain, as ShortFT cuts it; a shortcut jumps over parts 2 to k."""
    steps: int = Field(default=50, ge=1, le=999)
    """Length N of the DDIM chain; the jumps are exact for this grid alone."""
    few_step: bool = False
    """Whether the jumps cover the whole chain from noise to image, one per segment."""
    guidance_scale: float | None = Field(default=None, ge=1.0)
    """Guidance that the jumps absorb; by default the base model's own."""
    rank: int = Field(default=64, ge=1, le=1_024)
    """LoRA rank; alpha equals it, so the scale is always 1."""
    trajectories: int = Field(default=20_000, ge=1, le=10_000_000)
    """Chains of the base model to learn from."""
    trajectory_stride: int = Field(default=1, ge=1)
    """Steps of the chain that are recorded as one, between the ends of jumps: 3 records almost
    three times as many trajectories in the same time, each a little off the chain."""
    updates: int = Field(default=5_000, ge=1, le=1_000_000)
    """Optimizer updates; each sees every jump."""
    batch_size: int = Field(default=16, ge=1, le=4_096)
    """Trajectories per jump in one update, and chains in memory at once while they are recorded."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak of AdamW; 1e-4 suits rank 64 on SD 1.5, 2e-3 rank 8 on `shapes`."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the running average of the LoRA that is measured and saved."""
    checkpoint_every: int = Field(default=200, ge=1, le=1_000_000)
    """Updates between checkpoints."""
    prompts: PromptSource
    """What the trajectories show."""
    evaluation: DistilEvaluation = DistilEvaluation()
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Every random number of the job follows from it."""
    name: str | None = Field(default=None, max_length=200)
    """What people call the job; kept with it, used for nothing."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """The caller's own labels; kept with the job, used for nothing."""

    @model_validator(mode="after")
    def _has_jumps(self) -> Self:
        """Every jump has to skip a step, or it would be a step of the base model."""
        if self.few_step and self.steps <= self.segments:
            raise ValueError(
                f"a few-step generator of {self.segments} segments needs more than that many steps"
            )
        if not self.few_step and self.segments < 2:
            raise ValueError("a shortcut stands in for segments 2 to k: segments must be above 1")
        if not self.few_step and self.steps < 2 * self.segments:
            raise ValueError(
                f"a shortcut over {self.segments} segments needs {2 * self.segments} steps or more"
            )
        return self

    def sha256(self) -> str:
        """Identity of the specification: equal specs, equal hashes."""
        return identity(self)
