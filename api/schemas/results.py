"""The shapes of what a job leaves behind."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from api.schemas.common import Answer
from api.schemas.jobs import ArtifactRef


class SampleObject(Answer):
    """One picture of an evaluation; both of a pair share prompt, seed and `pair_index`."""

    object: Literal["sample"] = "sample"
    id: str
    update: int
    kind: Literal["base", "tuned"]
    pair_index: int
    prompt: str
    seed: int
    scores: dict[str, float]
    """Judge -> score in raw units."""
    url: str
    sha256: str
    size_bytes: int
    created_at: datetime


class SampleList(Answer):
    """Pictures by update, pair, and base before tuned."""

    object: Literal["list"] = "list"
    data: list[SampleObject]
    last_id: str | None
    """Give it as `after` for the pictures behind these."""
    has_more: bool


class CheckpointObject(Answer):
    """A state that the job, or a retry of it, can go on from."""

    object: Literal["checkpoint"] = "checkpoint"
    id: str
    update: int
    is_best: bool
    size_bytes: int
    sha256: str
    created_at: datetime
    reference: str
    """Give it to `/generate` as the id of an adapter."""


class CheckpointList(Answer):
    """Checkpoints, the newest first."""

    object: Literal["list"] = "list"
    data: list[CheckpointObject]


class ArtifactList(Answer):
    """The files of a result; empty until the job has succeeded."""

    object: Literal["list"] = "list"
    data: list[ArtifactRef]
