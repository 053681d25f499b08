"""The history of a job: numbered without gaps, appended by whoever holds the job, read by anybody.

A number is taken by an UPDATE of the job's row, so it is final when the row's lock is released:
numbers become visible in their order, and a reader that asks for what is after n misses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shortft_core.events import (
    CheckpointSaved,
    DistilMetrics,
    EvaluationDone,
    Event,
    PhaseStarted,
    StepMetrics,
)
from store.clock import database_now
from store.errors import LeaseLostError
from store.models import Job, JobEvent
from store.states import HELD, TERMINAL
from store.transitions import Entry, Lease, entry_of, insert_events

ENDINGS: Final = frozenset(f"job.{status}" for status in TERMINAL)
"""Types of a job's last event."""


def append(session: Session, lease: Lease, events: Sequence[Event]) -> tuple[int, ...]:
    """Adds what the trainer reported and moves the progress columns; returns the numbers.

    Raises LeaseLostError.
    """
    values: dict[str, Any] = {}
    for event in events:
        values |= _progress(event)
    return append_entries(session, lease, [entry_of(event) for event in events], values)


def append_entries(
    session: Session, lease: Lease, entries: list[Entry], values: dict[str, Any]
) -> tuple[int, ...]:
    """Adds lines and sets columns of a job that is held; raises LeaseLostError."""
    now = database_now(session)
    job = session.scalar(
        update(Job)
        .where(Job.id == lease.row_id, Job.lease_token == lease.token, Job.status.in_(HELD))
        .values({"updated_at": now, **values})
        .values(event_seq=Job.event_seq + len(entries))
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if job is None:
        raise LeaseLostError(lease.row_id, lease.token)
    return insert_events(session, job, entries, now) if entries else ()


def after(
    session: Session,
    job_id: str,
    seq: int = 0,
    *,
    types: Collection[str] = (),
    limit: int = 500,
) -> tuple[JobEvent, ...]:
    """Events with numbers above `seq`, in order: what a reader that has seen `seq` lacks.

    Only those of `types`, if any are given.
    """
    statement = (
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.seq > seq)
        .order_by(JobEvent.seq)
        .limit(limit)
    )
    if types:
        statement = statement.where(JobEvent.type.in_(types))
    return tuple(session.scalars(statement))


def envelope(event: JobEvent) -> dict[str, Any]:
    """The JSON form that polling, streams and webhooks share: the core's, with id, seq, job_id."""
    return {
        "object": "event",
        "id": event.id,
        "seq": event.seq,
        "type": event.type,
        "job_id": event.job_id,
        "created_at": event.created_at.isoformat().replace("+00:00", "Z"),
        "level": event.level,
        "message": event.message,
        "data": event.data,
    }


def _progress(event: Event) -> dict[str, Any]:
    """Columns of the job that an event moves, so that polling the job needs no history."""
    match event:
        case StepMetrics(update=done):
            return {"updates_completed": done, "latest_metrics": entry_of(event).data}
        case DistilMetrics(update=done, updates=total):
            return {"updates_completed": done, "updates_total": total}
        case PhaseStarted(phase=phase):
            return {"phase": phase}
        case CheckpointSaved(update=done):
            return {"resumable_update": done}
        case EvaluationDone(update=done, is_best=True):
            return {"best_update": done}
        case _:
            return {}
