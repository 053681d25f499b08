"""The shapes of events, log lines and curves."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.schemas.common import Answer


class EventObject(Answer):
    """One line of a job's history: the same envelope in lists, streams and clients."""

    object: Literal["event"] = "event"
    id: str = Field(examples=["evt_01kdy7v0x3e8m9q2s5t8w1z4b7"])
    seq: int
    """1, 2, 3, … within the job."""
    type: str = Field(examples=["job.metrics"])
    """Open enumeration: later versions add values."""
    job_id: str
    created_at: datetime
    level: str
    """`info`, `warn` or `error`."""
    message: str
    data: dict[str, Any]


class EventList(Answer):
    """A part of a job's history, in order."""

    object: Literal["list"] = "list"
    data: list[EventObject]
    last_seq: int
    """Give it as `after` for what comes next."""
    has_more: bool


class LogLine(Answer):
    """One line that a job's process wrote."""

    number: int
    attempt: int
    text: str
    created_at: datetime


class LogLines(Answer):
    """A part of a job's log, in order."""

    object: Literal["list"] = "list"
    data: list[LogLine]
    last_number: int
    """Give it as `after` for what comes next."""
    has_more: bool


class MetricSeries(Answer):
    """Curves by update."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "metrics",
                    "series": {"loss": [[1, 0.5, "2026-11-21T10:00:00Z"]]},
                    "downsampled": False,
                }
            ]
        }
    )

    object: Literal["metrics"] = "metrics"
    series: dict[str, list[tuple[int, float, datetime]]]
    """Key -> points (update, value, time); keys are paths such as `loss` or `terms/hps_v2`."""
    downsampled: bool
    """Whether points were left out; each extreme value is kept."""
