"""The shapes of the catalog's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shortft_core.schedule import Spacing
from shortft_core.spec import Method, RewardTerm


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Where one set of weights lives: a folder of the package, a hub repository, or an address."""

    bundled: str | None = None
    """Folder below `shortft_core/bundled`."""
    hub_id: str | None = None
    revision: str | None = None
    url: str | None = None
    files: tuple[str, ...] = ()
    """Files that are needed; empty for a whole pipeline or transformers folder."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Hashes of files that were seen; those never seen are recorded at their first download."""
    licence: str

    @property
    def place(self) -> str | None:
        """The folder, repository or address; together with `files` the same for equal weights."""
        return self.bundled or self.hub_id or self.url


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """What a base model is sampled and tuned with unless a job says otherwise.

    Without values of its own, as DRaFT and ShortFT tune Stable Diffusion 1.x: rank 128, 16 images
    an update.
    """

    guidance_scale: float = 7.5
    rank: int = 128
    learning_rate: float = 1e-4
    accumulation: int = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """A text-to-image model that can be tuned."""

    weights: Weights
    tuning: Tuning = Tuning()
    summary: str
    shortcut: str | None = None
    """Default shortcut of ShortFT, a name of `SHORTCUTS`; None: distil one first."""
    few_step: str | None = None
    """Default few-step model of direct tuning, a name of `SHORTCUTS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShortcutEntry:
    """A few-step LoRA that preserves the trajectories of its base model.

    One call of the merged model stands for a stretch of the guided chain.
    """

    files: Mapping[int, Weights]
    """Number of segments -> the file that was distilled for it."""
    base_models: tuple[str, ...]
    """Base models it belongs to, by name."""
    jumps: Literal["targeted", "parts", "any"]
    """Which jumps are trained: those on its card, any inside one of k equal parts, or any."""
    spacing: Spacing
    """Where its own few-step chain stands."""
    absorbs_guidance: bool
    """Whether a jump is one conditional call, or one guided like the steps it stands for."""
    guidance_range: tuple[float, float] | None
    """Guidance of the chain it stands for; None: unpublished."""
    scale: float | None = None
    """Strength of a file without alpha; None: the file states it."""
    use: Literal["shortcut", "few_step", "both"] = "both"
    summary: str

    @property
    def licence(self) -> str:
        """Licence of its files."""
        return next(iter(self.files.values())).licence


@dataclass(frozen=True, kw_only=True, slots=True)
class Reward:
    """A score of images under prompts."""

    spec: type[RewardTerm]
    target: str = ""
    summary: str
    weights: Mapping[str, Mapping[str, Weights]] = field(default_factory=dict)
    """Source name -> part -> weights; the first source is the default."""
    preset: Mapping[str, float] = field(default_factory=dict)
    """For a preset, in place of a target: names of the rewards it adds up -> weights."""
    quantity: str = ""
    """What it measures, where another reward measures the same or its negative."""
    differentiable: bool = True
    """Whether its gradient reaches the images, as methods that back-propagate it need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodEntry:
    """A way to move the reward into the weights."""

    spec: type[Method]
    target: str
    summary: str
    needs_gradient: bool = True
    """Whether it back-propagates the reward."""
