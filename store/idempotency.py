"""Idempotency keys: a repeated request is answered like the first one, and does nothing.

The key's row is written in the transaction that does the work, so both happen or neither does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.clock import database_now
from store.errors import KeyInFlightError, KeyReusedError
from store.models import IdempotencyKey

LIFETIME: Final = timedelta(hours=24)
_ANSWERED_WITHIN: Final = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyedRequest:
    """What makes two requests the same."""

    project: str
    operation: str
    """Method and path."""
    key: str
    request_sha256: str
    """Of the canonical body."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer to the first request."""

    resource_id: str
    status: int
    body: Mapping[str, Any]


def claim(session: Session, request: KeyedRequest, resource_id: str) -> Replay | None:
    """None if this is the first request with the key, which now has to `answer`; else the answer.

    Call it before the work, with the id that the work will create: of two requests at once, one
    waits here for the other. Raises KeyReusedError and KeyInFlightError.
    """
    now = database_now(session)
    session.execute(delete(IdempotencyKey).where(*_is(request), IdempotencyKey.expires_at <= now))
    row = {
        "project": request.project,
        "operation": request.operation,
        "key": request.key,
        "request_sha256": request.request_sha256,
        "resource_id": resource_id,
        "created_at": now,
        "expires_at": now + LIFETIME,
    }
    try:
        with session.begin_nested():
            session.execute(insert(IdempotencyKey), [row])
    except IntegrityError:
        # Not a fault: the primary key tells that another request was first.
        return _replay(session, request)
    return None


def is_known(session: Session, request: KeyedRequest) -> bool:
    """Whether an earlier request has the key, and will have it while this one is answered."""
    soon = database_now(session) + _ANSWERED_WITHIN
    found = select(IdempotencyKey.key).where(*_is(request), IdempotencyKey.expires_at > soon)
    return session.scalar(found) is not None


def answer(session: Session, request: KeyedRequest, status: int, body: Mapping[str, Any]) -> None:
    """Keeps the answer for whoever repeats the request."""
    session.execute(
        update(IdempotencyKey)
        .where(*_is(request))
        .values(response_status=status, response=dict(body))
        .execution_options(synchronize_session=False)
    )


def purge(session: Session) -> int:
    """Forgets keys whose day is over; returns how many."""
    now = database_now(session)
    gone = session.scalars(
        delete(IdempotencyKey)
        .where(IdempotencyKey.expires_at <= now)
        .returning(IdempotencyKey.key)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())


def _replay(session: Session, request: KeyedRequest) -> Replay:
    first = session.scalars(
        select(IdempotencyKey).where(*_is(request)).execution_options(populate_existing=True)
    ).one()
    if first.request_sha256 != request.request_sha256:
        raise KeyReusedError(f"key {request.key!r} was used with another request body")
    if first.response_status is None or first.response is None:
        raise KeyInFlightError(f"the request with key {request.key!r} is still being answered")
    return Replay(first.resource_id, first.response_status, first.response)


def _is(request: KeyedRequest) -> tuple[Any, ...]:
    return (
        IdempotencyKey.project == request.project,
        IdempotencyKey.operation == request.operation,
        IdempotencyKey.key == request.key,
    )
