"""What a job leaves behind: pictures and checkpoints while it runs, files at its end."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.auth import Reader
from api.conditional import IfNoneMatch
from api.downloads import Conditions, IfRange, RangeHeader, content
from api.job_view import artifact_ref
from api.openapi import refusals
from api.problems import ProblemError
from api.schemas.common import MOST_INT, JobId, checked_id, names_row
from api.schemas.results import (
    ArtifactList,
    CheckpointList,
    CheckpointObject,
    SampleList,
    SampleObject,
)
from api.service import AnyService
from api.urls import AnyUrls, Urls
from store import jobs, results
from store.models import Job, Sample
from store.objects import StoredObject

router = APIRouter(tags=["results"])
ArtifactId = Annotated[str, names_row("artifact")]
SampleId = Annotated[str, names_row("sample")]
_MOST_SAMPLES: Final = 1000
"""More than one evaluation has."""
_BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The bytes"},
    206: {"content": {"application/octet-stream": {}}, "description": "The asked range"},
    304: {"description": "As the client has it"},
    **refusals(410, 416),
}
_REPORT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/html": {}}, "description": "One page that loads nothing"},
    206: {"content": {"text/html": {}}, "description": "The asked range"},
    304: {"description": "As the client has it"},
    **refusals(409, 410, 416),
}
_REPORT_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"


async def conditions(
    request: Request,
    range_: RangeHeader = None,
    if_none_match: IfNoneMatch = None,
    if_range: IfRange = None,
) -> Conditions:
    """What the client says of the bytes it has."""
    if request.method == "HEAD":
        # Ranges are a matter of GET alone (RFC 9110, 14.2).
        return Conditions(if_none_match=if_none_match, only_headers=True)
    return Conditions(range_, if_none_match, if_range)


AnyConditions = Annotated[Conditions, Depends(conditions)]
"""Parameter of a route that answers with bytes."""


@dataclass(frozen=True, slots=True)
class SamplePage:
    """Which pictures a list holds."""

    update: Annotated[int | None, Query(ge=0, le=MOST_INT)] = None
    pair_index: Annotated[int | None, Query(ge=0, le=MOST_INT)] = None
    kind: Literal["base", "tuned"] | None = None
    limit: Annotated[int, Query(ge=1, le=_MOST_SAMPLES)] = _MOST_SAMPLES
    after: Annotated[str | None, Query(description="The pictures behind the one with this id.")] = (
        None
    )

    def of(self, session: Session, job_id: str) -> tuple[Sample, ...]:
        """The pictures, and one more where there are more; raises NotFoundError for `after`."""
        return results.samples(
            session,
            job_id,
            update=self.update,
            pair_index=self.pair_index,
            kind=self.kind,
            after=None if self.after is None else checked_id("sample", self.after),
            limit=self.limit + 1,
        )


@router.get("/jobs/{job_id}/samples")
def list_job_samples(
    job_id: JobId,
    service: AnyService,
    caller: Reader,
    urls: AnyUrls,
    asked: Annotated[SamplePage, Depends()],
) -> SampleList:
    """Pictures of the evaluations: of the base model beside the tuned one, same prompt and seed."""
    with service.database.read() as session:
        jobs.get(session, job_id, caller.project)
        rows = asked.of(session, job_id)
    page = rows[: asked.limit]
    return SampleList(
        data=[_sample(row, urls) for row in page],
        last_id=page[-1].id if page else None,
        has_more=len(rows) > asked.limit,
    )


def _sample(row: Sample, urls: Urls) -> SampleObject:
    return SampleObject(
        id=row.id,
        update=row.update,
        kind="base" if row.kind == "base" else "tuned",
        pair_index=row.pair_index,
        prompt=row.prompt,
        seed=row.seed,
        scores=row.scores,
        url=urls.of(f"/jobs/{row.job_id}/samples/{row.id}/content"),
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        created_at=row.created_at,
    )


@router.head("/jobs/{job_id}/samples/{sample_id}/content", include_in_schema=False)
@router.get("/jobs/{job_id}/samples/{sample_id}/content", responses=_BYTES, response_class=Response)
def read_job_sample(
    job_id: JobId,
    sample_id: SampleId,
    service: AnyService,
    caller: Reader,
    asked: AnyConditions,
) -> Response:
    """One picture."""
    with service.database.read() as session:
        jobs.get(session, job_id, caller.project)
        row = results.sample(session, job_id, sample_id)
    name = PurePosixPath(row.object_key).name
    return content(
        service.objects,
        StoredObject(row.object_key, row.sha256, row.size_bytes),
        media_type=_media_type(name),
        filename=f"{job_id}-{row.update:06d}-{row.pair_index}-{row.kind}{PurePosixPath(name).suffix}",
        conditions=asked,
        inline=True,
    )


@router.get("/jobs/{job_id}/checkpoints")
def list_job_checkpoints(job_id: JobId, service: AnyService, caller: Reader) -> CheckpointList:
    """States of a job, the newest first."""
    with service.database.read() as session:
        job = jobs.get(session, job_id, caller.project)
        rows = results.checkpoints(session, job_id)
    return CheckpointList(
        data=[
            CheckpointObject(
                id=row.id,
                update=row.update,
                is_best=row.update == job.best_update,
                size_bytes=row.size_bytes,
                sha256=row.sha256,
                created_at=row.created_at,
                reference=f"{job_id}@{row.update}",
            )
            for row in rows
        ]
    )


@router.get("/jobs/{job_id}/artifacts")
def list_job_artifacts(
    job_id: JobId, service: AnyService, caller: Reader, urls: AnyUrls
) -> ArtifactList:
    """The files of a job's result."""
    with service.database.read() as session:
        job = jobs.get(session, job_id, caller.project)
        return ArtifactList(data=[artifact_ref(row, urls) for row in job.artifacts])


@router.head("/jobs/{job_id}/artifacts/{artifact_id}/content", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/artifacts/{artifact_id}/content", responses=_BYTES, response_class=Response
)
def read_job_artifact(
    job_id: JobId,
    artifact_id: ArtifactId,
    service: AnyService,
    caller: Reader,
    asked: AnyConditions,
) -> Response:
    """One file, whole or in ranges; its `ETag` is its sha256."""
    with service.database.read() as session:
        jobs.get(session, job_id, caller.project)
        row = results.artifact(session, job_id, artifact_id)
    return content(
        service.objects,
        StoredObject(row.object_key, row.sha256, row.size_bytes),
        media_type=_media_type(row.filename),
        filename=row.filename,
        conditions=asked,
    )


@router.head("/jobs/{job_id}/report", include_in_schema=False)
@router.get("/jobs/{job_id}/report", responses=_REPORT, response_class=Response)
def read_job_report(
    job_id: JobId, service: AnyService, caller: Reader, asked: AnyConditions
) -> Response:
    """The report of a finished job: one HTML page that loads nothing."""
    with service.database.read() as session:
        job = jobs.get(session, job_id, caller.project)
    row = next((row for row in job.artifacts if row.kind == "report"), None)
    if row is None:
        raise _no_report(job)
    answer = content(
        service.objects,
        StoredObject(row.object_key, row.sha256, row.size_bytes),
        media_type="text/html",
        filename=row.filename,
        conditions=asked,
        inline=True,
    )
    answer.headers["Content-Security-Policy"] = _REPORT_POLICY
    return answer


def _no_report(job: Job) -> ProblemError:
    detail = f"job {job.id} is {job.status}; read its events, metrics and samples until it is done"
    return ProblemError("no_report", detail, extra={"current_status": job.status.value})


def _media_type(filename: str) -> str:
    return mimetypes.guess_type(filename)[0] or "application/octet-stream"
