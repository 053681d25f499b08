"""What a supervisor and its trainer say to each other, beside the events of the core."""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FENCE_SHARE: Final = 0.8
"""A trainer stops itself when this share of its lease has passed without a renewal."""


class ExitCode(IntEnum):
    """How a trainer ends in order."""

    DONE = 0
    """The result lies in the run folder."""
    FAILED = 1
    """An error that another attempt may not meet."""
    STOPPED = 75
    """Told to stop, or its supervisor is gone; saved."""
    RESTING = 76
    """Cancelled, paused, or halted by the guard until it is started again; saved."""
    FENCED = 77
    """The lease was not renewed in time."""
    REFUSED = 78
    """An error that every attempt would meet."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainerJob(_Line):
    """The job file that a trainer is started with."""

    job_id: str
    lease_token: int
    spec: dict[str, Any]
    """Resolved, with the prompts of uploaded sets in files."""
    run_folder: str
    lease_seconds: float
    renewed_at: float
    """Of `elapsed_seconds`: when the lease was last renewed before this file was written."""
    hang_seconds: float = Field(gt=0)
    """After so long without a turn for any of its threads the trainer's process is killed."""
    locks: tuple[str, ...]
    """Files to lock before anything is loaded: the device, and the job on this machine."""


class Control(_Line):
    """A line to the trainer."""

    control: Literal["ok", "stop", "cancel", "pause", "lost"]
    """`ok`: the lease was renewed; `lost`: somebody else has the job, end at once."""
    renewed_at: float = 0.0
    """Of an `ok`: when the renewal began, on the clock of `elapsed_seconds`.

    No age, since the line may lie in the pipe while a process is frozen.
    """


class Ended(_Line):
    """The trainer's last line, since a launcher in between may not pass its exit code on."""

    object: Literal["ended"] = "ended"
    code: ExitCode
    error_code: str | None = None
    error_message: str | None = None


def elapsed_seconds() -> float:
    """A clock for leases: never set back, and it also runs while the machine sleeps.

    All processes of a machine share it.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
