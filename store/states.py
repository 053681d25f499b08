"""The life of a job as a table: which trigger leads from which status to which; no I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final


class JobStatus(StrEnum):
    """Where a job is; readers have to expect more values in later versions."""

    QUEUED = auto()
    PREPARING = auto()
    RUNNING = auto()
    PAUSING = auto()
    PAUSED = auto()
    CANCELLING = auto()
    CANCELLED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


class Trigger(StrEnum):
    """What moves a job; the first three are verbs of users, the others belong to workers."""

    CANCEL = auto()
    PAUSE = auto()
    RESUME = auto()
    CLAIM = auto()
    """A worker takes the job."""
    START = auto()
    """The first update of an attempt begins."""
    SUCCEED = auto()
    """The result is stored."""
    FAIL = auto()
    """A permanent error, or a limit of attempts is reached."""
    RELEASE = auto()
    """The attempt is over without a result: stopped, crashed, or its lease expired."""


class Verb(StrEnum):
    """What a user may ask of a job; the last three concern finished jobs and leave them as is."""

    CANCEL = auto()
    PAUSE = auto()
    RESUME = auto()
    RETRY = auto()
    """A new job that goes on from the last checkpoint."""
    RERUN = auto()
    """A new job from the start."""
    DELETE = auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The trigger does not fit the status."""

    status: JobStatus
    trigger: Trigger
    allowed: tuple[Verb, ...]
    """What a user may ask instead."""


_S, _T = JobStatus, Trigger
TRANSITIONS: Final[Mapping[tuple[JobStatus, Trigger], JobStatus]] = {
    (_S.QUEUED, _T.CLAIM): _S.PREPARING,
    (_S.QUEUED, _T.CANCEL): _S.CANCELLED,
    (_S.QUEUED, _T.PAUSE): _S.PAUSED,
    (_S.PREPARING, _T.START): _S.RUNNING,
    (_S.PREPARING, _T.CANCEL): _S.CANCELLING,
    (_S.PREPARING, _T.PAUSE): _S.PAUSING,
    (_S.PREPARING, _T.SUCCEED): _S.SUCCEEDED,
    (_S.PREPARING, _T.FAIL): _S.FAILED,
    (_S.PREPARING, _T.RELEASE): _S.QUEUED,
    (_S.RUNNING, _T.CANCEL): _S.CANCELLING,
    (_S.RUNNING, _T.PAUSE): _S.PAUSING,
    (_S.RUNNING, _T.SUCCEED): _S.SUCCEEDED,
    (_S.RUNNING, _T.FAIL): _S.FAILED,
    (_S.RUNNING, _T.RELEASE): _S.QUEUED,
    (_S.PAUSING, _T.CANCEL): _S.CANCELLING,
    (_S.PAUSING, _T.RELEASE): _S.PAUSED,
    (_S.PAUSED, _T.CANCEL): _S.CANCELLED,
    (_S.PAUSED, _T.RESUME): _S.QUEUED,
    (_S.CANCELLING, _T.RELEASE): _S.CANCELLED,
}
"""(status, trigger) -> next status; what is absent is refused."""

TERMINAL: Final = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})
"""Never left."""
HELD: Final = frozenset({_S.PREPARING, _S.RUNNING, _S.PAUSING, _S.CANCELLING})
"""A worker has the lease."""

_FINISHED: Final = (Verb.RETRY, Verb.RERUN, Verb.DELETE)


def allowed(status: JobStatus) -> tuple[Verb, ...]:
    """What a user may ask of a job of this status."""
    if status is JobStatus.SUCCEEDED:
        return tuple(verb for verb in _FINISHED if verb is not Verb.RETRY)
    if status in TERMINAL:
        return _FINISHED
    verbs = (Verb.CANCEL, Verb.PAUSE, Verb.RESUME)
    return tuple(verb for verb in verbs if (status, Trigger(verb.value)) in TRANSITIONS)


def next_state(status: JobStatus, trigger: Trigger) -> JobStatus | Refusal:
    """The status after `trigger`, or why there is none."""
    found = TRANSITIONS.get((status, trigger))
    return found or Refusal(status, trigger, allowed(status))


class GenerationStatus(StrEnum):
    """Where a generation is: it has no checkpoint, so it is cancelled at once and never paused."""

    QUEUED = auto()
    RUNNING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    CANCELLED = auto()


OPEN_GENERATION: Final = frozenset({GenerationStatus.QUEUED, GenerationStatus.RUNNING})
"""Statuses that can still change; only these may be cancelled."""
