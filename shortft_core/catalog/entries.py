"""The shapes of the catalog's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """A text-to-image model that can be tuned."""

    weights: Weights
    guidance_scale: float
    summary: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reward:
    """A differentiable score of images under prompts."""

    spec: type[RewardTerm]
    target: str = ""
    summary: str
    weights: Mapping[str, Mapping[str, Weights]] = field(default_factory=dict)
    """Source name -> part -> weights; the first source is the default."""
    preset: Mapping[str, float] = field(default_factory=dict)
    """For a preset, in place of a target: names of the rewards it adds up -> weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodEntry:
    """A way to move the reward into the weights."""

    spec: type[Method]
    target: str
    summary: str
