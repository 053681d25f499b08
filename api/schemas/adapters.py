"""Adapters: what finished alignments yield."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from api.schemas.common import Answer


class AdapterAnswer(Answer):
    """An adapter that `/generate` may name."""

    object: Literal["adapter"] = "adapter"
    id: str
    job_id: str
    """The job that made it."""
    name: str | None
    base_model: str
    method: str
    rewards: list[str]
    """What it was tuned towards."""
    steps: int
    """Length of the only chain it serves."""
    guidance_scale: float
    """What it was trained at."""
    rank: int
    branches: int
    card: dict[str, Any]
    """Content of its `shortft.json`."""
    artifact_ids: list[str]
    """Files of the job that it is loaded from."""
    created_at: datetime
    urls: dict[str, str]
    """`self` and `job`."""
