"""What has to hold for every job, whatever was killed meanwhile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from store import results
from store.events import ENDINGS
from store.models import Artifact, Sample
from store.states import TERMINAL, JobStatus
from tests.faults.harness import Line, Service


def check(service: Service, job_id: str, *, updates: int | None = None) -> None:
    """Raises AssertionError for a broken promise; `updates` is what a success has to show."""
    check_history(service, job_id)
    check_overlap(service.lines(), job_id)
    check_artifacts(service, job_id)
    check_samples(service, job_id)
    if updates is not None:
        assert result(service, job_id) == {"update": updates, "total": updates * (updates + 1) // 2}


def check_history(service: Service, job_id: str) -> None:
    """Numbers without gaps; a finished job has one last event, and it says what the row says."""
    job, history = service.job(job_id), service.events(job_id)
    assert [event.seq for event in history] == list(range(1, len(history) + 1))
    assert job.event_seq == len(history)
    endings = [event.type for event in history if event.type in ENDINGS]
    if job.status in TERMINAL:
        assert endings == [f"job.{job.status}"]
        assert history[-1].type == endings[0]
    else:
        assert endings == []


def check_overlap(lines: list[Line], job_id: str) -> None:
    """No attempt writes anything once a later one has begun."""
    tokens = [line.token for line in lines if line.job_id == job_id]
    assert tokens == sorted(tokens)


def check_artifacts(service: Service, job_id: str) -> None:
    """A success has its files, whole and of one attempt; any other end has none."""
    job = service.job(job_id)
    with service.database.read() as session:
        rows = results.artifacts(session, job_id)
    assert bool(rows) == (job.status is JobStatus.SUCCEEDED)
    assert len({row.lease_token for row in rows}) <= 1
    check_bytes(service, rows)


def check_samples(service: Service, job_id: str) -> None:
    """Every picture that a row names is there, with the bytes that the row tells of."""
    with service.database.read() as session:
        rows = results.samples(session, job_id)
    check_bytes(service, rows)


def check_bytes(service: Service, rows: Sequence[Artifact | Sample]) -> None:
    """What a client is promised: the size and the hash of a row are those of its object."""
    for row in rows:
        data = service.objects.read(row.object_key)
        found = (len(data), hashlib.sha256(data).hexdigest())
        assert found == (row.size_bytes, row.sha256), row.object_key


def result(service: Service, job_id: str) -> dict[str, int]:
    """What the contract trainer's branch file says."""
    with service.database.read() as session:
        rows = {row.kind: row for row in results.artifacts(session, job_id)}
    content: dict[str, int] = json.loads(service.objects.read(rows["branch_1"].object_key))
    return content


def alive(pids: set[int]) -> set[int]:
    """Processes that still run, without those that nobody has waited for."""
    return {pid for pid in pids if _runs(pid)}


def trainers(service: Service) -> set[int]:
    """Every contract trainer that ever began."""
    return {line.pid for line in service.lines()}


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
