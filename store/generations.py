"""Requests for images as users see them: create, read, list, cancel, delete.

There is no checkpoint and nothing to resume, so a generation is cancelled at once and its events
are its own columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.orm import Session, selectinload

from store import jobs, tombstones
from store.clock import database_now
from store.errors import InvalidStateError, NotFoundError
from store.ids import new_id
from store.models import Generation, Image, equals_inline
from store.pages import Page, PageRequest, fetch_page
from store.states import OPEN_GENERATION, GenerationStatus


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


def cancel(session: Session, generation_id: str, project: str) -> Generation:
    """Ends a generation now, whoever works on it; raises InvalidStateError, NotFoundError."""
    now = database_now(session)
    unfinished = [
        Generation.id == generation_id,
        Generation.project == project,
        Generation.status.in_(OPEN_GENERATION),
    ]
    values = {"cancel_requested_at": now, **ended(now)}
    if not update_rows(session, unfinished, status=GenerationStatus.CANCELLED, **values):
        found = get(session, generation_id, project)
        raise InvalidStateError("generation", found.id, found.status, "cancel", ("delete",))
    return get(session, generation_id, project)


def remove(session: Session, generation_id: str, project: str) -> None:
    """Forgets a finished generation; its pictures are deleted after the commit.

    Raises InvalidStateError and NotFoundError.
    """
    mine = (Generation.id == generation_id, Generation.project == project)
    # Locked first: a worker may be about to end it.
    status = session.scalar(select(Generation.status).where(*mine).with_for_update())
    if status is None:
        raise NotFoundError("generation", generation_id)
    if status in OPEN_GENERATION:
        raise InvalidStateError("generation", generation_id, status, "delete", ("cancel",))
    _forget(session, [generation_id])


def remove_finished_before(session: Session, before: datetime, *, limit: int = 500) -> int:
    """Forgets generations that finished long ago; how many, of which there may be more."""
    finished = (
        select(Generation.id)
        .where(Generation.finished_at < before)
        .order_by(Generation.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = session.scalars(finished).all()
    _forget(session, ids)
    return len(ids)


def _forget(session: Session, ids: Sequence[str]) -> None:
    tombstones.leave(session, Generation, ids)
    session.execute(delete(Generation).where(Generation.id.in_(ids)))


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
        .where(*due(now), Generation.priority == priority)
        .order_by(Generation.turn)
        .limit(1)
    )
    last = session.scalar(mine)
    return max(session.scalar(served) or 0, 0 if last is None else last + 1)


def due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """What holds for a generation that a worker may claim now."""
    queued = equals_inline(Generation.status, GenerationStatus.QUEUED)
    return (queued, Generation.run_after <= now)


def ended(now: datetime) -> dict[str, Any]:
    """The columns of a generation that nobody holds any more, whatever its status."""
    return {
        "finished_at": now, "updated_at": now, "lease_owner": None, "lease_expires_at": None
    }  # fmt: skip


def update_rows(
    session: Session, conditions: Sequence[ColumnElement[bool]], **values: Any
) -> Sequence[Generation]:
    """The changed rows, without those that no longer fit the conditions."""
    return session.scalars(
        update(Generation)
        .where(*conditions)
        .values(values)
        .returning(Generation)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
