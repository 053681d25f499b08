"""A row of `jobs` as an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy.orm import Session

from api.schemas import jobs as shapes
from api.urls import Urls
from store import jobs, workers
from store.attempts import Limits
from store.models import Artifact, Job, Worker
from store.states import HELD, JobStatus, allowed

_PERMANENT: Final = frozenset({"invalid_config", "model_not_found", "dataset_error"})
"""Codes of failures that the same job would have again."""
_MOST_ATTEMPTS: Final = Limits().attempts
_WORKING: Final = frozenset({JobStatus.PREPARING, JobStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What answers about jobs take from outside of their rows."""

    workers: Sequence[Worker] = ()
    """Those that could take a queued job."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """How many jobs are claimed before each queued one."""


def surroundings(session: Session, of: Iterable[Job]) -> Surroundings:
    """The places of jobs in the queue, and the workers that could take them."""
    queued = [job for job in of if job.status is JobStatus.QUEUED]
    if not queued:
        return Surroundings()
    train = tuple(worker for worker in workers.alive(session) if worker.kind == "train")
    return Surroundings(train, jobs.queue_positions(session, queued))


def view_now(session: Session, job: Job, urls: Urls) -> shapes.JobObject:
    """The same for one row, whose surroundings are looked up."""
    return view(job, surroundings(session, [job]), urls)


def view(job: Job, around: Surroundings, urls: Urls) -> shapes.JobObject:
    """The job as an answer; its artifacts and adapter are loaded."""
    now = datetime.now(tz=UTC)
    progress = _progress(job)
    left = progress.seconds_remaining
    return shapes.JobObject(
        id=job.id,
        status=job.status,
        phase=job.phase,
        kind=job.kind,
        name=job.name,
        metadata=job.labels,
        base_model=job.base_model,
        method=job.method,
        rewards=[reward["name"] for reward in job.spec.get("rewards", ())],
        prompt_set=_prompt_set(job.spec["prompts"]),
        eval_prompt_set=_prompt_set(job.spec["evaluation"]["prompts"]),
        seed=job.spec["seed"],
        spec=job.spec,
        spec_sha256=job.spec_sha256,
        progress=progress,
        queue=_place(job, around, now),
        attempt=job.attempt,
        max_attempts=_MOST_ATTEMPTS,
        priority=job.priority,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        estimated_finish_at=None if left is None else now + timedelta(seconds=left),
        updated_at=job.updated_at,
        durations=_durations(job, now),
        latest_metrics=job.latest_metrics,
        best_update=job.best_update,
        resumable_update=job.resumable_update,
        last_event=job.event_seq,
        result=_result(job, urls),
        error=_error(job),
        parent=_parent(job),
        worker=_worker(job),
        allowed_actions=list(allowed(job.status)),
        urls=_urls(job.id, urls),
    )


def etag(job: shapes.JobObject) -> str:
    """Changes whenever the answer does, but for what passes with time alone."""
    # A heartbeat is no update of the job, nor is it one that its parent was deleted.
    moments = (job.updated_at, job.worker and job.worker.heartbeat_at)
    parts = (
        *(moment and f"{int(moment.timestamp() * 1_000_000):x}" for moment in moments),
        job.last_event,
        job.queue.position,
        job.queue.reason,
        job.parent and job.parent.job_id,
    )
    return f'W/"{"-".join(map(str, parts))}"'


def artifact_ref(artifact: Artifact, urls: Urls) -> shapes.ArtifactRef:
    """One file of a result."""
    return shapes.ArtifactRef(
        id=artifact.id,
        kind=artifact.kind,
        filename=artifact.filename,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        url=urls.of(f"/jobs/{artifact.job_id}/artifacts/{artifact.id}/content"),
    )


def _progress(job: Job) -> shapes.Progress:
    total, done = job.updates_total or _asked_updates(job.spec), job.updates_completed
    elapsed = (job.latest_metrics or {}).get("wall_seconds") or None
    pace = done / elapsed if elapsed and done else None
    known = pace is not None and total is not None and job.status in _WORKING
    return shapes.Progress(
        percent=round(100 * min(1.0, done / total), 2) if total else None,
        updates_completed=done,
        updates_total=total,
        seconds_elapsed=elapsed,
        seconds_remaining=max(0, total - done) / pace if known and total and pace else None,
        updates_per_second=pace,
        estimate_available=known,
    )


def _asked_updates(spec: dict[str, Any]) -> int | None:
    """Of an alignment they are in the method, of a distillation on top."""
    updates: int | None = spec.get("method", spec).get("updates")
    return updates


def _prompt_set(source: dict[str, Any] | None) -> str | None:
    return None if source is None else source["name"] or source["id"]


def _place(job: Job, around: Surroundings, now: datetime) -> shapes.Place:
    if job.status is not JobStatus.QUEUED:
        return shapes.Place(position=None, reason=None, estimated_start_at=None)
    position = around.positions.get(job.id)
    reason = _reason(job, around.workers, position, now)
    start = {"backing_off": job.run_after, "starting": now}.get(reason)
    return shapes.Place(position=position, reason=reason, estimated_start_at=start)


_Reason = Literal["backing_off", "no_worker", "behind_others", "workers_busy", "starting"]


def _reason(job: Job, crew: Sequence[Worker], position: int | None, now: datetime) -> _Reason:
    if job.run_after > now:
        return "backing_off"
    if not crew:
        return "no_worker"
    if position:
        return "behind_others"
    ready = any(worker.state == "ready" for worker in crew)
    return "starting" if ready else "workers_busy"


def _durations(job: Job, now: datetime) -> shapes.Durations:
    end = job.finished_at or now
    started = job.started_at
    return shapes.Durations(
        queued_seconds=max(0.0, ((started or end) - job.created_at).total_seconds()),
        running_seconds=None if started is None else max(0.0, (end - started).total_seconds()),
        total_seconds=max(0.0, (end - job.created_at).total_seconds()),
    )


def _result(job: Job, urls: Urls) -> shapes.Result | None:
    if job.status is not JobStatus.SUCCEEDED:
        return None
    return shapes.Result(
        adapter_id=job.adapter.id if job.adapter else None,
        artifacts=[artifact_ref(artifact, urls) for artifact in job.artifacts],
    )


def _error(job: Job) -> shapes.JobError | None:
    if job.error_code is None:
        return None
    return shapes.JobError(
        code=job.error_code,
        message=job.error_message or job.exit_cause or "",
        retryable=job.error_code not in _PERMANENT,
    )


def _parent(job: Job) -> shapes.Parent | None:
    return (job.parent_id and shapes.Parent(job_id=job.parent_id, update=job.parent_update)) or None


def _worker(job: Job) -> shapes.WorkerRef | None:
    if job.status not in HELD or job.lease_owner is None:
        return None
    return shapes.WorkerRef(id=job.lease_owner, gpu=job.device, heartbeat_at=job.heartbeat_at)


def _urls(job_id: str, urls: Urls) -> shapes.JobUrls:
    own = urls.of(f"/jobs/{job_id}")
    parts = ("events", "logs", "metrics", "samples", "checkpoints", "artifacts", "report", "cancel")
    below = {part: f"{own}/{part}" for part in parts}
    return shapes.JobUrls(self=own, stream=f"{own}/events/stream", **below)
