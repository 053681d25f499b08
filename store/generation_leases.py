"""Leases on generations: claimed in batches, finished one by one, taken back from lost workers.

A row whose batch failed, or was lost with its worker, is claimed alone afterwards: poison takes no
innocent request with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, func, insert, select
from sqlalchemy.orm import Session

from store.attempts import Ending, Limits, Tally
from store.clock import database_now
from store.errors import LeaseLostError
from store.generations import due, ended, update_rows
from store.ids import new_id
from store.leases import NOTHING_SAID, Report
from store.models import Generation, Image
from store.objects import StoredObject
from store.states import GenerationStatus
from store.transitions import Lease

LEASE_SECONDS: Final = 90.0
LIMITS: Final = Limits(crashes=2, lost_leases=3, attempts=5, backoff_seconds=1.0)
"""A person waits for it: fewer tries and shorter waits than a job has."""
_IS_UNSUSPECTED: Final = (Generation.crashes == 0, Generation.lost_leases == 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewImage:
    """One stored picture of an answer."""

    stored: StoredObject
    prompt: str
    seed: int | None
    width: int
    height: int
    kind: Literal["base", "tuned"] = "tuned"
    media_type: str = "image/png"
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClaimedGeneration:
    """A generation and the lease on it."""

    generation: Generation
    lease: Lease


def claim_batch(
    session: Session, worker_id: str, *, most: int, lease_seconds: float = LEASE_SECONDS
) -> tuple[ClaimedGeneration, ...]:
    """Takes the first generation that is due and those that can run with it; empty for none."""
    now = database_now(session)
    batch = _due(session, now, [], limit=1)
    if batch and batch[0].crashes + batch[0].lost_leases == 0:
        alike = [Generation.batch_key == batch[0].batch_key, *_IS_UNSUSPECTED]
        batch = _due(session, now, alike, limit=most)
    ids = [generation.id for generation in batch]
    claimed = update_rows(
        session,
        [Generation.id.in_(ids), Generation.status == GenerationStatus.QUEUED],
        status=GenerationStatus.RUNNING,
        lease_owner=worker_id,
        lease_token=Generation.lease_token + 1,
        lease_expires_at=now + timedelta(seconds=lease_seconds),
        heartbeat_at=now,
        attempt=Generation.attempt + 1,
        started_at=func.coalesce(Generation.started_at, now),
        updated_at=now,
    )
    return tuple(
        ClaimedGeneration(row, Lease(row.id, row.lease_token, worker_id, row.attempt))
        for row in sorted(claimed, key=lambda row: ids.index(row.id))
    )


def renew(
    session: Session, leases: Sequence[Lease], *, lease_seconds: float = LEASE_SECONDS
) -> frozenset[str]:
    """Moves the deadlines of a batch; returns the ids still held, without the cancelled ones."""
    now = database_now(session)
    until = now + timedelta(seconds=lease_seconds)
    # In the order of ids, as every statement on several rows: no two can wait for each other.
    return frozenset(
        row.id
        for lease in sorted(leases, key=lambda lease: lease.row_id)
        for row in update_rows(session, _held(lease), lease_expires_at=until, heartbeat_at=now)
    )


def succeed(
    session: Session,
    lease: Lease,
    images: Sequence[NewImage],
    outcome: Mapping[str, Any] | None = None,
) -> Generation:
    """Publishes the pictures and ends the generation; `outcome` is the answer's other part.

    Raises LeaseLostError, after a cancel too.
    """
    said = dict(outcome) if outcome is not None else None
    generation = _end(session, lease, GenerationStatus.SUCCEEDED, outcome=said)
    now = database_now(session)
    copied = ("kind", "prompt", "seed", "width", "height", "media_type")
    rows = [
        {
            "id": new_id("img"),
            "generation_id": lease.row_id,
            "position": position,
            "scores": dict(new.scores),
            "object_key": new.stored.key,
            "sha256": new.stored.sha256,
            "size_bytes": new.stored.size_bytes,
            "created_at": now,
            **{name: getattr(new, name) for name in copied},
        }
        for position, new in enumerate(images)
    ]
    if rows:
        session.execute(insert(Image), rows)
    return generation


def fail(session: Session, lease: Lease, report: Report) -> Generation:
    """Ends a generation that cannot succeed; raises LeaseLostError."""
    columns = report.columns(failed=True)
    columns["error_code"] = columns["error_code"] or "internal"
    return _end(session, lease, GenerationStatus.FAILED, **columns)


def release(
    session: Session, lease: Lease, ending: Ending, report: Report = NOTHING_SAID
) -> Generation:
    """Gives a generation back without a result: queued again, or failed; raises LeaseLostError."""
    rows = session.scalars(select(Generation).where(*_held(lease)).with_for_update()).all()
    if not rows:
        raise LeaseLostError(lease.row_id, lease.token)
    return _end_attempt(session, rows[0], ending, report)


def sweep(session: Session, *, limit: int = 50) -> tuple[Generation, ...]:
    """Ends the attempts whose leases have expired; any number of sweepers may run at once."""
    now = database_now(session)
    expired = session.scalars(
        select(Generation)
        .where(Generation.status == GenerationStatus.RUNNING, Generation.lease_expires_at < now)
        .order_by(Generation.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    report = Report(
        error_code="worker_lost",
        error_message="The workers of this generation were lost again and again.",
        exit_cause="its worker was not heard of in time",
    )
    return tuple(_end_attempt(session, row, Ending.LEASE_EXPIRED, report) for row in expired)


def unwoken(session: Session, *, every_seconds: float = 15.0, limit: int = 50) -> bool:
    """Whether there is a due generation that nobody was told of lately; marks those as told.

    The caller wakes a generate worker after the commit.
    """
    now = database_now(session)
    recently = now - timedelta(seconds=every_seconds)
    untold = [Generation.woken_at.is_(None) | (Generation.woken_at <= recently)]
    ids = [generation.id for generation in _due(session, now, untold, limit=limit)]
    return bool(update_rows(session, [Generation.id.in_(ids)], woken_at=now))


def is_due(session: Session) -> bool:
    """Whether a worker could claim a generation now."""
    now = database_now(session)
    statement = select(Generation.id).where(*due(now)).limit(1)
    return session.scalar(statement) is not None


def _due(
    session: Session, now: datetime, more: Sequence[ColumnElement[bool]], *, limit: int
) -> Sequence[Generation]:
    statement = (
        select(Generation)
        .where(*due(now), *more)
        .order_by(Generation.priority.desc(), Generation.turn, Generation.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return session.scalars(statement).all()


def _held(lease: Lease) -> list[ColumnElement[bool]]:
    return [
        Generation.id == lease.row_id,
        Generation.lease_token == lease.token,
        Generation.status == GenerationStatus.RUNNING,
    ]


def _end(session: Session, lease: Lease, status: GenerationStatus, **values: Any) -> Generation:
    values |= ended(database_now(session))
    rows = update_rows(session, _held(lease), status=status, **values)
    if not rows:
        raise LeaseLostError(lease.row_id, lease.token)
    return rows[0]


def _end_attempt(session: Session, row: Generation, ending: Ending, report: Report) -> Generation:
    before = Tally(attempt=row.attempt, crashes=row.crashes, lost_leases=row.lost_leases)
    tally = before.after(ending, progressed=False)
    lease = Lease(row.id, row.lease_token, str(row.lease_owner), row.attempt)
    values: dict[str, Any] = {
        "attempt": tally.attempt,
        "crashes": tally.crashes,
        "lost_leases": tally.lost_leases,
        "lease_token": row.lease_token + (ending is Ending.LEASE_EXPIRED),
    }
    reached = tally.exhausted(LIMITS)
    if reached is not None:
        columns = report.columns(failed=True)
        columns["error_code"] = columns["error_code"] or reached
        return _end(session, lease, GenerationStatus.FAILED, **values, **columns)
    now = database_now(session)
    values |= {"run_after": now + tally.backoff(LIMITS), "woken_at": None, **ended(now)}
    values |= {"status": GenerationStatus.QUEUED, "finished_at": None}
    return update_rows(session, _held(lease), **values, **report.columns(failed=False))[0]
