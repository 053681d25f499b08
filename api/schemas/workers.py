"""Workers as they last described themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from api.schemas.common import Answer


class WorkerAnswer(Answer):
    """A worker process."""

    object: Literal["worker"] = "worker"
    id: str
    kind: str
    """`train`, `generate`, or `default` for chores."""
    state: str
    """Open enumeration: `ready`, `busy`, `draining`; `lost` when it was not heard of in time."""
    host: str
    pid: int
    slots: int
    """How much it can do at once."""
    device: str
    version: str
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age_seconds: float
