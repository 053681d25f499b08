"""Jobs: make them, look at them, steer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from api.auth import Caller, Reader, Writer
from api.conditional import IfNoneMatch, is_known
from api.estimates import estimate
from api.idempotent import AnyKeyed, Keyed, Reply, once
from api.job_filter import METADATA_PARAMETER, AnyJobFilter
from api.job_view import etag, surroundings, view, view_now
from api.openapi import refusals
from api.problems import ProblemError
from api.schemas.common import AnyPage, JobId, ListOf, list_of
from api.schemas.jobs import SPEC_EXAMPLE, JobChange, JobObject, Validation
from api.service import AnyService, Service
from api.submit import AnyJob, hold_uploads, resolved
from api.urls import AnyUrls, Urls
from shortft_core.spec import AlignSpec, JobSpec
from shortft_core.spec.read import parse_job
from store import jobs
from store.broker import Queue
from store.ids import new_id
from store.jobs import NewJob, Repeat
from store.models import Job

router = APIRouter(tags=["jobs"])
_ACCEPTED: Final = 202
_POLL_SECONDS: Final = "2"
_HEADERS: Final = {
    "Location": {"description": "Path of the job.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which to look again.",
        "schema": {"type": "integer"},
    },
    "Idempotent-Replayed": {
        "description": "`true` where an earlier request had done it.",
        "schema": {"type": "string"},
    },
}
_CREATED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": JobObject, "description": "An earlier request had done it", "headers": _HEADERS},
    202: {"model": JobObject, "description": "The job is queued", "headers": _HEADERS},
    **refusals(409),
}
Specification = Annotated[JobSpec, Body(examples=[SPEC_EXAMPLE])]
PriorityQuery = Annotated[
    int, Query(ge=-100, le=100, description="Higher is claimed first; 0 is usual.")
]


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that makes or changes a job."""

    service: Service
    caller: Caller
    urls: Urls
    keyed: Keyed | None

    def once(self, job_id: str, status: int, work: Callable[[Session], Job]) -> Reply:
        """The job that `work` leaves, which is done once per key."""
        request = None if self.keyed is None else self.keyed.of(self.caller)

        def transaction(session: Session) -> Reply:
            def answer() -> JobObject:
                job = jobs.with_result(session, work(session))
                return view_now(session, job, self.urls)

            return once(session, request, job_id, status, answer)

        return self.service.database.transact(transaction)


async def _keyed_request(
    service: AnyService, caller: Writer, urls: AnyUrls, keyed: AnyKeyed
) -> _Request:
    return _Request(service, caller, urls, keyed)


async def _unkeyed_request(service: AnyService, caller: Writer, urls: AnyUrls) -> _Request:
    return _Request(service, caller, urls, None)


Asked = Annotated[_Request, Depends(_keyed_request)]
"""Parameter of a route: a request that may be repeated with an idempotency key."""
Unkeyed = Annotated[_Request, Depends(_unkeyed_request)]
"""Parameter of a route: a request whose repetition changes nothing anyway."""


@router.post("/jobs", status_code=_ACCEPTED, response_model=JobObject, responses=_CREATED)
def create_job(spec: Specification, asked: Asked, priority: PriorityQuery = 0) -> Response:
    """Queues a job. All mistakes of the specification are reported at once."""
    job_id = new_id("job")
    caller = asked.caller
    complete = _resolved(asked, spec)

    def work(session: Session) -> Job:
        if isinstance(complete, ProblemError):
            raise complete
        hold_uploads(session, caller, complete)
        new = NewJob(
            spec=complete,
            id=job_id,
            project=caller.project,
            api_key_id=caller.api_key_id,
            priority=priority,
        )
        return jobs.create(session, new, most_open=caller.most_open_jobs)

    return _made(asked, job_id, work)


def _resolved(asked: _Request, spec: AnyJob) -> AnyJob | ProblemError:
    """A repeated request gets its first answer, even if it could not be accepted any more."""
    try:
        return resolved(asked.service, asked.caller, spec)
    except ProblemError as refused:
        if asked.keyed is None:
            raise
        return refused


@router.post("/jobs/validate")
def validate_job(spec: Specification, service: AnyService, caller: Writer) -> Validation:
    """Says what `POST /jobs` would say, and what the job would cost, without making one."""
    complete = resolved(service, caller, spec)
    cost = estimate(service, complete) if isinstance(complete, AlignSpec) else None
    return Validation(spec=complete, estimate=cost)


@router.get("/jobs", openapi_extra={"parameters": [METADATA_PARAMETER]})
def list_jobs(
    service: AnyService,
    caller: Reader,
    wanted: AnyJobFilter,
    asked: AnyPage,
    urls: AnyUrls,
    request: Request,
    response: Response,
) -> ListOf[JobObject]:
    """The jobs of the project, page by page."""
    with service.database.read() as session:
        page = jobs.page(session, wanted.of(caller), asked)
        around = surroundings(session, page.rows)
        return list_of(
            page,
            lambda job: view(job, around, urls),
            lambda job: job.id,
            request,
            response,
            asked=asked,
        )


@router.get(
    "/jobs/{job_id}",
    response_model=JobObject,
    responses={304: {"description": "As the client has it"}},
)
async def retrieve_job(
    job_id: JobId,
    service: AnyService,
    caller: Reader,
    urls: AnyUrls,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """One job. Poll with `If-None-Match`: a job that has not changed is not sent again."""
    job, around = await service.job_reader.read(job_id, caller.project)
    found = view(job, around, urls)
    headers = {"ETag": etag(found)}
    if is_known(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    # As the framework would write it, without checking the object once more.
    return Response(found.model_dump_json(), media_type="application/json", headers=headers)


@router.patch("/jobs/{job_id}", response_model=JobObject, responses=refusals(409))
def update_job(job_id: JobId, change: JobChange, asked: Unkeyed) -> Response:
    """Changes the labels, or the place in the queue."""

    def work(session: Session, job: Job) -> Job:
        if change.priority is not None:
            job = jobs.reprioritize(session, job_id, change.priority)
        if change.metadata is not None:
            job = jobs.relabel(session, job_id, change.metadata)
        return job

    return _changed(asked, job_id, work).response()


@router.delete("/jobs/{job_id}", status_code=204, responses=refusals(409))
def delete_job(job_id: JobId, service: AnyService, caller: Writer) -> None:
    """Forgets a finished job, with its checkpoints, pictures and result."""

    def work(session: Session) -> None:
        jobs.get(session, job_id, caller.project)
        jobs.remove(session, job_id)

    # Its objects are rubbish from now on, which the chores collect once it has lain for a day.
    service.database.transact(work)


@router.post("/jobs/{job_id}/cancel", response_model=JobObject, responses=refusals(409))
def cancel_job(job_id: JobId, asked: Asked) -> Response:
    """Ends a job: a waiting one now, a running one as soon as its worker has let go."""
    return _changed(asked, job_id, lambda session, job: jobs.cancel(session, job.id)).response()


@router.post("/jobs/{job_id}/pause", response_model=JobObject, responses=refusals(409))
def pause_job(job_id: JobId, asked: Asked) -> Response:
    """Stops a job until it is resumed; a running one writes a checkpoint first."""
    return _changed(asked, job_id, lambda session, job: jobs.pause(session, job.id)).response()


@router.post("/jobs/{job_id}/resume", response_model=JobObject, responses=refusals(409))
def resume_job(job_id: JobId, asked: Asked) -> Response:
    """Queues a paused job again; it goes on from its checkpoint."""
    reply = _changed(asked, job_id, lambda session, job: jobs.resume(session, job.id))
    if not reply.replayed:
        asked.service.doorbell.ring(Queue.TRAIN)
    return reply.response()


@router.post(
    "/jobs/{job_id}/retry", status_code=_ACCEPTED, response_model=JobObject, responses=_CREATED
)
def retry_job(job_id: JobId, asked: Asked) -> Response:
    """Makes a new job that goes on from the last checkpoint of a failed or cancelled one."""
    new = new_id("job")
    return _made(asked, new, _again(job_id, asked.caller, new, jobs.retry))


@router.post(
    "/jobs/{job_id}/rerun", status_code=_ACCEPTED, response_model=JobObject, responses=_CREATED
)
def rerun_job(job_id: JobId, asked: Asked) -> Response:
    """Makes a new job that does what a finished one did, from the start."""
    new = new_id("job")
    return _made(asked, new, _again(job_id, asked.caller, new, jobs.rerun))


def _again(
    job_id: str, caller: Caller, new: str, verb: Callable[[Session, str, Repeat], Job]
) -> Callable[[Session], Job]:
    asked = Repeat(id=new, api_key_id=caller.api_key_id, most_open=caller.most_open_jobs)

    def work(session: Session) -> Job:
        job = jobs.get(session, job_id, caller.project)
        if job.started_at is None and job.parent_id is None:
            # There is no copy of its prompts that the new job could inherit.
            hold_uploads(session, caller, parse_job(job.spec))
        return verb(session, job_id, asked)

    return work


def _made(asked: _Request, job_id: str, work: Callable[[Session], Job]) -> Response:
    """Makes a job once per key, and wakes a worker when it is committed."""
    reply = asked.once(job_id, _ACCEPTED, work)
    if not reply.replayed:
        asked.service.doorbell.ring(Queue.TRAIN)
    where = asked.urls.of(f"/jobs/{reply.resource_id}")
    return reply.response({"Location": where, "Retry-After": _POLL_SECONDS})


def _changed(asked: _Request, job_id: str, work: Callable[[Session, Job], Job]) -> Reply:
    """Changes a job of the caller's project once per key."""

    def change(session: Session) -> Job:
        return work(session, jobs.get(session, job_id, asked.caller.project))

    return asked.once(job_id, 200, change)
