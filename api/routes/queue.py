"""`GET /queue`: what waits for workers, and what they work on."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Depends

from api.auth import requires
from api.schemas.queue import Crew, QueueAnswer
from api.service import AnyService
from store import generations, jobs, workers
from store.api_keys import Scope
from store.models import Worker

router = APIRouter(tags=["service"])


@router.get("/queue", dependencies=[Depends(requires(Scope.JOBS_READ))])
def retrieve_queue(service: AnyService) -> QueueAnswer:
    """How much waits and runs in the whole service, and who works on it."""
    with service.database.read() as session:
        counts = jobs.count_by_status(session)
        depths = jobs.queue_depths(session)
        of_generations = generations.count_by_status(session)
        crew = workers.alive(session)
    return QueueAnswer(
        jobs={str(status): count for status, count in counts.items()},
        waiting=depths,
        generations={str(status): count for status, count in of_generations.items()},
        workers={kind: _crew(crew, kind) for kind in sorted({row.kind for row in crew})},
    )


def _crew(workers_of_all: Sequence[Worker], kind: str) -> Crew:
    own = [row for row in workers_of_all if row.kind == kind]
    return Crew(
        workers=len(own),
        busy=sum(row.state == "busy" for row in own),
        slots=sum(row.slots for row in own),
    )
