"""What a specification may name."""

from __future__ import annotations

from typing import Any, Literal

from api.schemas.common import Answer


class ShortcutAnswer(Answer):
    """A few-step model that shortens the chains of a base model."""

    name: str
    summary: str
    licence: str
    segments: list[int]
    """Numbers of segments that there is a file for."""
    use: Literal["shortcut", "few_step", "both"]
    on_disk: list[int]
    """Numbers of segments whose file is on this machine."""


class ModelAnswer(Answer):
    """A base model of the catalog."""

    object: Literal["model"] = "model"
    name: str
    summary: str
    licence: str
    hub_id: str | None
    """Where it is fetched from; None for a bundled one."""
    guidance_scale: float
    """What it is sampled and tuned with by default."""
    on_disk: bool
    """Whether its files are on the machine that answers; else a worker fetches them."""
    size_bytes: int | None
    """Of the files on disk."""
    default_shortcut: str | None
    default_few_step: str | None
    shortcuts: list[ShortcutAnswer]


class RewardSource(Answer):
    """Weights that a reward may take."""

    name: str
    licence: str
    on_disk: bool
    size_bytes: int | None


class RewardAnswer(Answer):
    """A reward of the catalog."""

    object: Literal["reward"] = "reward"
    name: str
    summary: str
    differentiable: bool
    """Whether methods that back-propagate it may optimise it; it can judge in any case."""
    sources: list[RewardSource]
    """The default first; empty for a reward without weights."""
    adds_up: dict[str, float]
    """For a preset: its rewards and their weights."""
    parameters: dict[str, Any]
    """JSON schema of an item of `rewards`."""


class MethodAnswer(Answer):
    """A tuning method of the catalog."""

    object: Literal["method"] = "method"
    name: str
    summary: str
    needs_gradient: bool
    """Whether it needs differentiable rewards."""
    parameters: dict[str, Any]
    """JSON schema of `method`."""
    defaults: dict[str, Any]
    """What a parameter is unless it is given; null where the base model or a preset decides."""
    units: dict[str, str]
    """Of the parameters that have one."""
