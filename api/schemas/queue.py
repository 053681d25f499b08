"""What waits, what runs, and who works."""

from __future__ import annotations

from typing import Literal

from api.schemas.common import Answer


class Crew(Answer):
    """The living workers of one kind."""

    workers: int
    busy: int
    slots: int


class QueueAnswer(Answer):
    """The load of the whole service; no project sees more of another one than these numbers."""

    object: Literal["queue"] = "queue"
    jobs: dict[str, int]
    """Status -> jobs."""
    waiting: dict[str, int]
    """Resource class -> queued jobs."""
    generations: dict[str, int]
    """Status -> generations."""
    workers: dict[str, Crew]
    """Kind -> workers; kinds without a living worker are missing."""
