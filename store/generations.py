"""Requests for images: rows that a generate worker claims in batches and finishes one by one.

There is no checkpoint and nothing to resume, so a generation is cancelled at once and its events
are its own columns. A row whose batch failed, or was lost with its worker, is claimed alone
afterwards: poison takes no innocent request with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.orm import Session, selectinload

from store import jobs
from store.attempts import Ending, Limits, Tally
from store.clock import database_now
from store.errors import InvalidStateError, LeaseLostError, NotFoundError
from store.ids import new_id
from store.leases import NOTHING_SAID, Report
from store.models import Generation, Image, equals_inline
from store.objects import StoredObject
from store.pages import Page, PageRequest, fetch_page
from store.states import OPEN_GENERATION, GenerationStatus
from store.transitions import Lease

LEASE_SECONDS: Final = 90.0
LIMITS: Final = Limits(crashes=2, lost_leases=3, attempts=5, backoff_seconds=1.0)
"""A person waits for it: fewer tries and shorter waits than a job has."""
_IS_UNSUSPECTED: Final = (Generation.crashes == 0, Generation.lost_leases == 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewGeneration:
    """A resolved request and who asks for it."""

    request: Mapping[str, Any]
    batch_key: str
    id: str = field(default_factory=lambda: new_id("gen"))
    kind: Literal["generate", "score"] = "generate"
    project: str = "default"
    api_key_id: str | None = None
    priority: int = 0


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


def create(session: Session, new: NewGeneration, *, most_open: int | None = None) -> Generation:
    """A queued generation.

    Raises QuotaExceededError if its API key has `most_open` unfinished ones already.
    """
    jobs.check_quota(session, new.api_key_id, most_open, what="generations", count=count_open)
    now = database_now(session)
    caller = new.api_key_id or new.project
    row = {
        "id": new.id,
        "project": new.project,
        "api_key_id": new.api_key_id,
        "kind": new.kind,
        "request": dict(new.request),
        "batch_key": new.batch_key,
        "caller": caller,
        "turn": _next_turn(session, caller, new.priority, now),
        "status": GenerationStatus.QUEUED,
        "priority": new.priority,
        "run_after": now,
        "created_at": now,
        "updated_at": now,
    }
    session.execute(insert(Generation), [row])
    return get(session, new.id, new.project)


def get(session: Session, generation_id: str, project: str) -> Generation:
    """The generation with its images; raises NotFoundError, for others' generations too."""
    found = session.scalar(
        select(Generation)
        .where(Generation.id == generation_id, Generation.project == project)
        .options(selectinload(Generation.images))
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFoundError("generation", generation_id)
    return found


def page(session: Session, project: str, request: PageRequest) -> Page[Generation]:
    """The generations of a project with their images, page by page."""
    statement = select(Generation).where(Generation.project == project)
    with_images = statement.options(selectinload(Generation.images))
    return fetch_page(session, with_images, Generation.id, request)


def image(session: Session, image_id: str, project: str) -> Image:
    """One picture of a project; raises NotFoundError."""
    found = session.scalar(
        select(Image)
        .join(Generation, Generation.id == Image.generation_id)
        .where(Image.id == image_id, Generation.project == project)
    )
    if found is None:
        raise NotFoundError("image", image_id)
    return found


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
    claimed = _update(
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
        for row in _update(session, _held(lease), lease_expires_at=until, heartbeat_at=now)
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
    return bool(_update(session, [Generation.id.in_(ids)], woken_at=now))


def count_by_status(session: Session) -> dict[GenerationStatus, int]:
    """How many generations of all projects are in each status, with 0 where there are none."""
    rows = session.execute(select(Generation.status, func.count()).group_by(Generation.status))
    return dict.fromkeys(GenerationStatus, 0) | dict(rows.all())


def count_open(session: Session, api_key_id: str) -> int:
    """How many generations and scores of this key are not finished."""
    mine = select(func.count()).where(Generation.caller == api_key_id)
    # Each is one look at a partial index: the finished ones are too many to be counted over.
    queued = mine.where(equals_inline(Generation.status, GenerationStatus.QUEUED))
    held = mine.where(Generation.lease_expires_at.is_not(None))
    both = select(queued.scalar_subquery() + held.scalar_subquery())
    found: int = session.scalars(both).one()
    return found


def is_due(session: Session) -> bool:
    """Whether a worker could claim a generation now."""
    now = database_now(session)
    statement = select(Generation.id).where(*_is_due(now)).limit(1)
    return session.scalar(statement) is not None


def cancel(session: Session, generation_id: str, project: str) -> Generation:
    """Ends a generation now, whoever works on it; raises InvalidStateError, NotFoundError."""
    now = database_now(session)
    unfinished = [
        Generation.id == generation_id,
        Generation.project == project,
        Generation.status.in_(OPEN_GENERATION),
    ]
    values = {"cancel_requested_at": now, **_ended(now)}
    if not _update(session, unfinished, status=GenerationStatus.CANCELLED, **values):
        found = get(session, generation_id, project)
        raise InvalidStateError("generation", found.id, found.status, "cancel", ())
    return get(session, generation_id, project)


def _next_turn(session: Session, caller: str, priority: int, now: datetime) -> int:
    """One round after the caller's last waiting request, and never before the round being served.

    So a caller with one request waits for one request of each other caller, not for all of them;
    and taking the lowest round first is one look at an index.
    """
    mine = (
        select(Generation.turn)
        .where(
            equals_inline(Generation.status, GenerationStatus.QUEUED),
            Generation.caller == caller,
            Generation.priority == priority,
        )
        .order_by(Generation.turn.desc())
        .limit(1)
    )
    served = (
        select(Generation.turn)
        .where(*_is_due(now), Generation.priority == priority)
        .order_by(Generation.turn)
        .limit(1)
    )
    last = session.scalar(mine)
    return max(session.scalar(served) or 0, 0 if last is None else last + 1)


def _is_due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    queued = equals_inline(Generation.status, GenerationStatus.QUEUED)
    return (queued, Generation.run_after <= now)


def _due(
    session: Session, now: datetime, more: Sequence[ColumnElement[bool]], *, limit: int
) -> Sequence[Generation]:
    statement = (
        select(Generation)
        .where(*_is_due(now), *more)
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
    ended = _ended(database_now(session))
    rows = _update(session, _held(lease), status=status, **ended, **values)
    if not rows:
        raise LeaseLostError(lease.row_id, lease.token)
    return rows[0]


def _ended(now: datetime) -> dict[str, Any]:
    return {
        "finished_at": now, "updated_at": now, "lease_owner": None, "lease_expires_at": None
    }  # fmt: skip


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
    values |= {"run_after": now + tally.backoff(LIMITS), "woken_at": None, **_ended(now)}
    values |= {"status": GenerationStatus.QUEUED, "finished_at": None}
    return _update(session, _held(lease), **values, **report.columns(failed=False))[0]


def _update(
    session: Session, conditions: Sequence[ColumnElement[bool]], **values: Any
) -> Sequence[Generation]:
    return session.scalars(
        update(Generation)
        .where(*conditions)
        .values(values)
        .returning(Generation)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
