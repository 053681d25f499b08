"""The one place that changes a job's status: a conditional UPDATE and its event, together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from shortft_core.events import Event, Level, to_envelope
from store.clock import database_now
from store.errors import InvalidStateError, LeaseLostError, NotFoundError
from store.ids import new_id
from store.models import Job, JobEvent
from store.states import HELD, TERMINAL, JobStatus, Refusal, Trigger, next_state


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a row, as long as its token is the row's."""

    row_id: str
    token: int
    owner: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a job's history before it has a number."""

    type: str
    message: str = ""
    level: Level = "info"
    data: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    """None for the time of the transaction."""


def entry_of(event: Event) -> Entry:
    """What the trainer reported, as a line of the history."""
    envelope = to_envelope(event)
    return Entry(
        type=event.type,
        message=event.message,
        level=event.level,
        data=envelope["data"],
        created_at=event.created_at,
    )


def lock_job(session: Session, job_id: str) -> Job:
    """The job, which nobody else changes until the transaction ends; raises NotFoundError."""
    job = _lock(session, job_id)
    if job is None:
        raise NotFoundError("job", job_id)
    return job


def lock_held(session: Session, lease: Lease) -> Job:
    """The locked job of a lease; raises LeaseLostError if the lease is not the row's any more."""
    job = _lock(session, lease.row_id)
    if job is None or job.lease_token != lease.token or job.status not in HELD:
        raise LeaseLostError(lease.row_id, lease.token)
    return job


def change(
    session: Session, job: Job, trigger: Trigger, entry: Entry | None = None, **values: Any
) -> Job:
    """Moves a locked job along the table, sets `values`, and writes the event of it.

    Without `entry`, the event is called after the new status. Raises InvalidStateError with the
    allowed verbs.
    """
    status = next_state(job.status, trigger)
    if isinstance(status, Refusal):
        raise InvalidStateError("job", job.id, job.status, trigger, status.allowed)
    now = database_now(session)
    changed = session.scalars(
        update(Job)
        .where(Job.id == job.id, Job.status == job.status, Job.lease_token == job.lease_token)
        .values({"status": status, "updated_at": now, **_consequences(status, now), **values})
        .values(event_seq=Job.event_seq + 1)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one()
    insert_events(session, changed, [entry or Entry(f"job.{status}")], now)
    return changed


def _lock(session: Session, job_id: str) -> Job | None:
    return session.scalar(
        select(Job)
        .where(Job.id == job_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def _consequences(status: JobStatus, now: datetime) -> dict[str, Any]:
    """What a status says about other columns; the table's CHECK constraints say the same."""
    values: dict[str, Any] = {}
    if status not in HELD:
        values |= {"lease_owner": None, "lease_expires_at": None}
    if status in TERMINAL:
        values |= {"finished_at": now, "phase": None}
    return values


def insert_events(
    session: Session, job: Job, entries: list[Entry], now: datetime
) -> tuple[int, ...]:
    """Writes the events whose numbers an UPDATE of this transaction has just taken."""
    first = job.event_seq - len(entries) + 1
    rows = [
        {
            "job_id": job.id,
            "seq": seq,
            "id": new_id("evt"),
            "type": entry.type,
            "level": entry.level,
            "message": entry.message,
            "data": dict(entry.data),
            "created_at": entry.created_at or now,
        }
        for seq, entry in enumerate(entries, start=first)
    ]
    session.execute(insert(JobEvent), rows)
    return tuple(range(first, job.event_seq + 1))
