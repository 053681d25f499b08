"""What happens to a job: its history, live or not, its log, its curves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.auth import Reader
from api.openapi import refusals
from api.problems import ProblemError
from api.schemas.common import MOST_INT, JobId
from api.schemas.events import EventList, EventObject, LogLine, LogLines, MetricSeries
from api.service import AnyService
from api.sse import done, opening
from shortft_core.errors import UserError
from store import events, jobs, logs, metrics
from store.models import JobEvent, JobLog
from store.states import TERMINAL

router = APIRouter(tags=["events"])
_MOST_EVENTS: Final = 1000
_MOST_LINES: Final = 1000
_TYPE: Final = r"^[a-z0-9_.,]*$"
After = Annotated[int, Query(ge=0, le=MOST_INT, description="What comes after this number.")]
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Frames `id: <seq>`, `event: <type>`, `data: <envelope>`; then `done`"},
    **refusals(406),
}


@router.get("/jobs/{job_id}/events")
def list_job_events(
    job_id: JobId,
    service: AnyService,
    caller: Reader,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_EVENTS)] = 100,
    types: Annotated[
        str, Query(max_length=500, pattern=_TYPE, description="Only these, comma-separated.")
    ] = "",
) -> EventList:
    """A job's history in order, without gaps."""
    wanted = [name for name in types.split(",") if name]
    with service.database.read() as session:
        jobs.get(session, job_id, caller.project)
        rows = events.after(session, job_id, after, types=wanted, limit=limit + 1)
    page = rows[:limit]
    return EventList(
        data=[_event(row) for row in page],
        last_seq=page[-1].seq if page else after,
        has_more=len(rows) > limit,
    )


def _event(row: JobEvent) -> EventObject:
    return EventObject.model_validate(events.envelope(row))


async def last_seen(
    after: Annotated[
        int | None, Query(ge=0, le=MOST_INT, description="For clients without that header.")
    ] = None,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=MOST_INT, description="Number of the last event that was seen.")
    ] = None,
) -> int:
    """The event after which a stream begins; a browser's header is newer than its URL."""
    return next((number for number in (last_event_id, after) if number is not None), 0)


async def acceptable(request: Request) -> None:
    """Raises ProblemError 406 for a client that cannot read event streams."""
    given = request.headers.get("accept", "*/*")
    names = {part.split(";")[0].strip().lower() for part in given.split(",")}
    if not names & {"text/event-stream", "text/*", "*/*", ""}:
        raise ProblemError("not_acceptable", "this path answers with text/event-stream alone")


async def admitted(service: AnyService, caller: Reader) -> AsyncIterator[None]:
    """Counts the stream while it is open."""
    with service.streams.admitted(caller.name):
        yield


def is_over(
    job_id: JobId, service: AnyService, caller: Reader, after: Annotated[int, Depends(last_seen)]
) -> str | None:
    """The last event's type, if there is nothing more to come; raises NotFoundError."""
    with service.database.read() as session:
        job = jobs.get(session, job_id, caller.project)
    return f"job.{job.status}" if job.status in TERMINAL and after >= job.event_seq else None


@router.get(
    "/jobs/{job_id}/events/stream",
    response_class=EventSourceResponse,
    responses=_STREAM,
    dependencies=[Depends(acceptable), Depends(admitted)],
)
async def stream_job_events(
    job_id: JobId,
    service: AnyService,
    after: Annotated[int, Depends(last_seen)],
    over: Annotated[str | None, Depends(is_over)],
) -> AsyncIterator[ServerSentEvent]:
    """A job's history as it grows; ends with `done`, or without it after ten minutes.

    Connect again with the number of the last event: nothing is lost or repeated.
    """
    if over is not None:
        yield opening()
        yield done(over)
        return
    async for frame in service.streams.frames(job_id, after):
        yield frame


@router.get("/jobs/{job_id}/logs")
def list_job_logs(
    job_id: JobId,
    service: AnyService,
    caller: Reader,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_LINES)] = 200,
    tail: Annotated[
        int | None, Query(ge=1, le=_MOST_LINES, description="The last lines instead.")
    ] = None,
) -> LogLines:
    """What the processes of a job wrote, over all its attempts."""
    if tail is not None and after:
        raise UserError("tail", "it cannot stand beside after", "Give one of them")
    with service.database.read() as session:
        jobs.get(session, job_id, caller.project)
        if tail is not None:
            rows = tuple(logs.tail(session, job_id, tail))
        else:
            rows = tuple(logs.after(session, job_id, after, limit=limit + 1))
    page = rows[: tail or limit]
    return LogLines(
        data=[_line(row) for row in page],
        last_number=page[-1].number if page else after,
        has_more=len(rows) > len(page),
    )


def _line(row: JobLog) -> LogLine:
    return LogLine(number=row.number, attempt=row.attempt, text=row.text, created_at=row.created_at)


@router.get("/jobs/{job_id}/metrics")
def retrieve_job_metrics(
    job_id: JobId,
    service: AnyService,
    caller: Reader,
    key: Annotated[
        list[str] | None, Query(max_length=50, description="Paths such as `terms/hps_v2`.")
    ] = None,
    since_update: Annotated[int, Query(ge=0, le=MOST_INT)] = 0,
    max_points: Annotated[int, Query(ge=4, le=10_000, description="Of each curve.")] = 2000,
) -> MetricSeries:
    """Curves of a job; where points are left out, each extreme value stays."""
    with service.database.read() as session:
        jobs.get(session, job_id, caller.project)
        found = metrics.series(
            session, job_id, key or (), since_update=since_update, max_points=max_points
        )
    return MetricSeries(
        series={
            name: [(point.update, point.value, point.created_at) for point in curve.points]
            for name, curve in sorted(found.items())
        },
        downsampled=any(curve.is_thinned for curve in found.values()),
    )
