"""`shortcut.json`: what a jump LoRA is for, what it was made from, and how good it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from shortft_core.errors import ArtifactError, UserError
from shortft_core.spec import Source, Spec

CARD_FILE: Final = "shortcut.json"
MAX_RMS_RATIO: Final = 0.8
"""Error of all jumps together, in units of the error of guided DDIM jumps of the base model."""
MAX_JUMP_RATIO: Final = 1.0
"""The same for each single jump."""
MAX_REWARD_SHIFT: Final = 0.2
"""Change of a mean reward, in standard deviations of the base model's images."""


class JumpError(Spec):
    """Root mean square error of x_s on held-out trajectories, from the true x_t, latent units."""

    timestep: int
    next_timestep: int
    rmse: float
    """Of the distilled jump: one conditional call."""
    guided_naive_rmse: float
    """Of one DDIM step of the base model with guidance: two calls."""
    unguided_naive_rmse: float
    """Of one conditional DDIM step of the base model: one call."""

    @property
    def ratio(self) -> float:
        """Error in units of the guided naive jump; below 1 the distillation gained."""
        return self.rmse / self.guided_naive_rmse

    @property
    def unguided_ratio(self) -> float:
        """Error in units of the unguided naive jump, which costs the same."""
        return self.rmse / self.unguided_naive_rmse


class RewardShift(Spec):
    """One reward on the images of the full, the shortened and the naive chain, raw units."""

    full_mean: float
    full_std: float
    """Standard deviation over the images of the full chain."""
    shortened_mean: float
    naive_mean: float
    """Of the shortened chain whose jumps are guided DDIM steps of the base model."""

    @property
    def shift(self) -> float:
        """Change of the mean by the jumps, in standard deviations of the full chain."""
        return (self.shortened_mean - self.full_mean) / self.full_std

    @property
    def naive_shift(self) -> float:
        """The same for naive jumps."""
        return (self.naive_mean - self.full_mean) / self.full_std


class Report(Spec):
    """Acceptance of a distillation, on trajectories that it never saw."""

    trajectories: int
    jumps: tuple[JumpError, ...]
    image_rmse: float
    """Images of the shortened against the full chain, same prompts and seeds, pixels in [0, 1]."""
    naive_image_rmse: float
    rewards: Mapping[str, RewardShift]

    @property
    def rms_ratio(self) -> float:
        """Root mean square of the ratios to the guided naive jumps."""
        return math.sqrt(sum(jump.ratio**2 for jump in self.jumps) / len(self.jumps))

    @property
    def unguided_rms_ratio(self) -> float:
        """Root mean square of the ratios to the unguided naive jumps."""
        return math.sqrt(sum(jump.unguided_ratio**2 for jump in self.jumps) / len(self.jumps))

    def missed_goals(self) -> tuple[str, ...]:
        """One sentence for each goal that the jumps do not reach; none means accepted."""
        missed = [
            f"jump {jump.timestep} -> {jump.next_timestep} has {jump.ratio:.2f} of the naive error"
            for jump in self.jumps
            if jump.ratio > MAX_JUMP_RATIO
        ]
        if self.rms_ratio > MAX_RMS_RATIO:
            missed.append(f"the jumps have {self.rms_ratio:.2f} of the naive error")
        missed += [
            f"{name} shifts by {score.shift:+.2f} standard deviations"
            for name, score in self.rewards.items()
            if abs(score.shift) > MAX_REWARD_SHIFT
        ]
        return tuple(missed)


class ShortcutCard(Spec):
    """What a job has to know before it may use a jump LoRA."""

    version: Literal[1] = 1
    kind: Literal["shortcut", "few_step"]
    """Jumps within segments 2 to k, or one jump per segment from noise to image."""
    base_model: Source
    base_sha256: str
    """Fingerprint of the base model; the jumps fit no other."""
    steps: int
    segments: int
    timesteps: tuple[int, ...]
    """The DDIM grid, first step first; the jumps fit no other."""
    steps_offset: int
    guidance_scale: float
    """Guidance that the jumps absorb: each is one conditional call."""
    negative_prompt: Literal[""] = ""
    """Absorbed with the guidance."""
    jumps: tuple[tuple[int, int], ...]
    """Timestep before and after each jump; -1 is the clean image."""
    rank: int
    file: str
    """The LoRA beside this card, kohya keys, alpha applied by every reader."""
    sha256: str
    """Hash of the file."""
    report: Report
    spec_sha256: str


def read_card(path: Path) -> ShortcutCard:
    """The card at `path`; UserError if there is none, ArtifactError if it is no card."""
    if not path.is_file():
        raise UserError("shortcut", f"{path} is missing", "Give the folder of a distillation")
    try:
        return ShortcutCard.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ArtifactError(f"{path} is not a shortcut card: {error}") from error
