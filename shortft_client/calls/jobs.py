"""Requests about jobs and about what they leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from shortft_client.answers import (
    Artifact,
    Checkpoint,
    Job,
    JobEvent,
    LogLine,
    Sample,
    Validation,
)
from shortft_client.call import (
    Call,
    Model,
    Pages,
    delete,
    get,
    get_bytes,
    get_json,
    given,
    list_reader,
    path,
    post,
    reader,
)
from shortft_core.spec import AlignSpec, DistilSpec

AnySpec = AlignSpec | DistilSpec | Mapping[str, Any]
"""A specification as object or as the mapping that a file holds."""


class JobFilter(TypedDict, total=False):
    """Which jobs a list holds; all conditions together."""

    status: str | Sequence[str]
    base_model: str
    method: str
    reward: str
    q: str
    metadata: Mapping[str, str]
    created_after: str
    created_before: str
    order: str
    limit: int


def create(spec: AnySpec, *, priority: int | None = None) -> Call[Job]:
    """Queues a job; the specification is checked by the service, all mistakes at once."""
    return post("/jobs", Job, content(spec), priority=priority)


def validate(spec: AnySpec) -> Call[Validation]:
    """What `create` would say, and what the job would cost, without making one."""
    return post("/jobs/validate", Validation, content(spec))


def retrieve(job_id: str) -> Call[Job]:
    """One job."""
    return get(path("jobs", job_id), Job)


def every(**conditions: Unpack[JobFilter]) -> Pages[Job]:
    """The jobs that meet all conditions, the newest first; pages are fetched as they are needed."""
    query: dict[str, Any] = {**conditions}
    labels = query.pop("metadata", {})
    query |= {f"metadata[{name}]": value for name, value in labels.items()}
    if not isinstance(query.get("status", ""), str):
        query["status"] = ",".join(query["status"])
    return Pages(path="/jobs", item=Job.model_validate, query=query)


def update(
    job_id: str, *, metadata: Mapping[str, str] | None = None, priority: int | None = None
) -> Call[Job]:
    """Changes the labels, or the place in the queue."""
    body = given({"metadata": metadata, "priority": priority})
    return Call(method="PATCH", path=path("jobs", job_id), body=body, read=reader(Job))


def cancel(job_id: str) -> Call[Job]:
    """Ends a job for good; what it has stored stays."""
    return post(path("jobs", job_id, "cancel"), Job)


def pause(job_id: str) -> Call[Job]:
    """Saves a job and frees its worker."""
    return post(path("jobs", job_id, "pause"), Job)


def resume(job_id: str) -> Call[Job]:
    """Queues a paused job again."""
    return post(path("jobs", job_id, "resume"), Job)


def retry(job_id: str) -> Call[Job]:
    """A new job that goes on from the last checkpoint of a failed or cancelled one."""
    return post(path("jobs", job_id, "retry"), Job)


def rerun(job_id: str) -> Call[Job]:
    """A new job of the same specification, from the start."""
    return post(path("jobs", job_id, "rerun"), Job)


def remove(job_id: str) -> Call[None]:
    """Forgets a finished job, with everything that it has left."""
    return delete(path("jobs", job_id))


def events(job_id: str, *, after: int = 0, limit: int | None = None) -> Call[list[JobEvent]]:
    """The job's history behind event number `after`, as far as one answer goes."""
    return _list(path("jobs", job_id, "events"), JobEvent, after=after, limit=limit)


def logs(
    job_id: str, *, after: int | None = None, limit: int | None = None, tail: int | None = None
) -> Call[list[LogLine]]:
    """Lines behind number `after`, or the last `tail` ones."""
    where = path("jobs", job_id, "logs")
    return _list(where, LogLine, after=after, limit=limit, tail=tail)


def metrics(job_id: str, **query: str | int) -> Call[dict[str, Any]]:
    """Series of measured values."""
    return get_json(path("jobs", job_id, "metrics"), **query)


def samples(job_id: str, **query: str | int) -> Pages[Sample]:
    """Pictures of the evaluations."""
    return Pages(path=path("jobs", job_id, "samples"), item=Sample.model_validate, query=query)


def sample_content(job_id: str, sample_id: str) -> Call[bytes]:
    """The bytes of one picture of an evaluation."""
    return get_bytes(path("jobs", job_id, "samples", sample_id, "content"))


def checkpoints(job_id: str) -> Call[list[Checkpoint]]:
    """The states that can be gone on from, or generated with."""
    return _list(path("jobs", job_id, "checkpoints"), Checkpoint)


def artifacts(job_id: str) -> Call[list[Artifact]]:
    """The files of the result."""
    return _list(path("jobs", job_id, "artifacts"), Artifact)


def report(job_id: str) -> Call[bytes]:
    """The report, one HTML file."""
    return get_bytes(path("jobs", job_id, "report"))


def content(spec: AnySpec) -> Any:
    """The JSON form of a specification, without what was left open."""
    if isinstance(spec, Mapping):
        return spec
    return spec.model_dump(mode="json", exclude_unset=True) | {"kind": spec.kind}


def _list(where: str, kind: type[Model], **query: Any) -> Call[list[Model]]:
    return Call(method="GET", path=where, query=given(query), read=list_reader(kind))
