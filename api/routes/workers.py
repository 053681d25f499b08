"""`GET /workers`: who works, on what, and when it was last heard of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter, Depends

from api.auth import requires
from api.schemas.common import ListOf
from api.schemas.workers import WorkerAnswer
from api.service import AnyService
from store import workers
from store.api_keys import Scope
from store.models import Worker

router = APIRouter(tags=["service"])
_SHOWN_FOR: Final = timedelta(hours=1)
"""A lost worker is shown for a while, so that people see it was lost."""


@router.get("/workers", dependencies=[Depends(requires(Scope.JOBS_READ))])
def list_workers(service: AnyService) -> ListOf[WorkerAnswer]:
    """The workers that have not stopped in order, the oldest first; lost ones for an hour."""
    with service.database.read() as session:
        rows = workers.alive(session, within_seconds=_SHOWN_FOR.total_seconds())
    now = datetime.now(tz=UTC)
    data = [_worker(row, now) for row in rows]
    return ListOf(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=False,
    )


def _worker(row: Worker, now: datetime) -> WorkerAnswer:
    age = max(0.0, (now - row.heartbeat_at).total_seconds())
    return WorkerAnswer(
        id=row.id,
        kind=row.kind,
        state="lost" if age > workers.ALIVE_SECONDS else row.state,
        host=row.host,
        pid=row.pid,
        slots=row.slots,
        device=row.device,
        version=row.version,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        heartbeat_age_seconds=round(age, 3),
    )
