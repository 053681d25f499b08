"""Workers as the service sees them: each describes itself and says regularly that it lives."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from store.clock import database_now
from store.errors import NotFoundError
from store.ids import new_id
from store.models import Worker

State = Literal["ready", "busy", "draining", "stopped"]
ALIVE_SECONDS: Final = 45.0
"""Three heartbeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewWorker:
    """What a worker says of itself when it starts."""

    kind: Literal["train", "generate", "default"]
    host: str
    pid: int
    slots: int
    device: str
    version: str
    boot_id: str | None = None
    id: str = field(default_factory=lambda: new_id("wrk"))


def register(session: Session, new: NewWorker) -> Worker:
    """Adds a worker that is ready."""
    now = database_now(session)
    row = {
        "id": new.id,
        "kind": new.kind,
        "host": new.host,
        "pid": new.pid,
        "boot_id": new.boot_id,
        "slots": new.slots,
        "device": new.device,
        "version": new.version,
        "state": "ready",
        "started_at": now,
        "heartbeat_at": now,
    }
    return session.scalars(insert(Worker).returning(Worker), [row]).one()


def beat(session: Session, worker_id: str, state: State) -> None:
    """Notes that a worker lives and what it does; raises NotFoundError if it was forgotten."""
    seen = session.scalar(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(state=state, heartbeat_at=database_now(session))
        .returning(Worker.id)
        .execution_options(synchronize_session=False)
    )
    if seen is None:
        raise NotFoundError("worker", worker_id)


def alive(session: Session, *, within_seconds: float = ALIVE_SECONDS) -> tuple[Worker, ...]:
    """Workers that have neither stopped nor fallen silent, the oldest first."""
    since = database_now(session) - timedelta(seconds=within_seconds)
    statement = (
        select(Worker)
        .where(Worker.heartbeat_at > since, Worker.state != "stopped")
        .order_by(Worker.id)
    )
    return tuple(session.scalars(statement))


def forget_silent(session: Session, *, after: timedelta = timedelta(days=1)) -> int:
    """Removes workers that have been silent for long; returns how many."""
    since = database_now(session) - after
    gone = session.scalars(
        delete(Worker)
        .where(Worker.heartbeat_at < since)
        .returning(Worker.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
