"""What a storm has done: which promises it broke, what was made twice, and how long jobs waited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from shortft_core.errors import ArtifactError
from store import results
from store.events import ENDINGS
from store.models import Artifact, Job, JobEvent, Sample
from store.states import TERMINAL, JobStatus
from tests.faults import invariants
from tests.faults.harness import Line, Service

_REQUEUED: Final = frozenset({"job.queued", "job.retrying", "job.resumed"})
_STARTED: Final = "job.started"


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known of one job."""

    job: Job
    updates: int
    """How many it had to make."""
    history: tuple[JobEvent, ...]
    lines: list[Line]
    """What its trainers wrote of themselves."""
    told_to_end: bool


@dataclass(slots=True)
class Verdict:
    """Broken promises by kind, and what the faults cost."""

    statuses: Counter[str] = field(default_factory=Counter)
    broken: dict[str, list[str]] = field(default_factory=dict)
    """Promise -> jobs that it was broken for."""
    made: int = 0
    """Updates that trainers made."""
    needed: int = 0
    """Updates that the outcomes rest on."""
    waits_seconds: list[float] = field(default_factory=list)
    """From each return to the queue to the next first update."""

    @property
    def rework_percent(self) -> float:
        """Share of the updates that were made again."""
        return 100.0 * (self.made - self.needed) / self.needed if self.needed else 0.0


def judge(service: Service, planned: dict[str, int], cancelled: Collection[str]) -> Verdict:
    """Looks at every job of `planned`, which has the updates of each."""
    verdict = Verdict(broken={name: [] for name in PROMISES})
    by_job: dict[str, list[Line]] = {job_id: [] for job_id in planned}
    for line in service.lines():
        by_job[line.job_id].append(line)
    for job_id, updates in planned.items():
        job, history = service.job(job_id), service.events(job_id)
        case = Case(job, updates, history, by_job[job_id], job_id in cancelled)
        for name, holds in PROMISES.items():
            if not holds(service, case):
                verdict.broken[name].append(job_id)
        done = [line.update for line in case.lines if line.what == "update"]
        verdict.statuses[job.status.value] += 1
        verdict.made += len(done)
        verdict.needed += max(done, default=0)
        verdict.waits_seconds += waits_seconds(history)
    return verdict


def waits_seconds(history: Sequence[JobEvent]) -> Iterator[float]:
    """Seconds from each return to the queue until the job ran again."""
    steps = [event for event in history if event.type in _REQUEUED | {_STARTED}]
    for before, after in pairwise(steps):
        if before.type in _REQUEUED and after.type == _STARTED:
            yield (after.created_at - before.created_at).total_seconds()


def _is_not_lost(_: Service, case: Case) -> bool:
    """It has come to the end that it was meant for."""
    allowed = {JobStatus.SUCCEEDED} | ({JobStatus.CANCELLED} if case.told_to_end else set())
    return case.job.status in allowed


def _is_not_doubled(service: Service, case: Case) -> bool:
    """One end, one trainer at a time, and each update counted once in the result."""
    endings = [event.type for event in case.history if event.type in ENDINGS]
    tokens = [line.token for line in case.lines]
    if len(endings) > 1 or tokens != sorted(tokens):
        return False
    if case.job.status is not JobStatus.SUCCEEDED:
        return True
    right = {"update": case.updates, "total": case.updates * (case.updates + 1) // 2}
    return invariants.result(service, case.job.id) == right


def _is_not_torn(service: Service, case: Case) -> bool:
    """Files and pictures have the bytes that rows tell of; a success has files, of one attempt."""
    with service.database.read() as session:
        files = results.artifacts(session, case.job.id)
        pictures = results.samples(session, case.job.id)
    rows: tuple[Artifact | Sample, ...] = (*files, *pictures)
    try:
        sizes = [len(service.objects.read(row.object_key, sha256=row.sha256)) for row in rows]
    except ArtifactError:
        return False
    attempts = len({row.lease_token for row in files})
    wanted = 1 if case.job.status is JobStatus.SUCCEEDED else 0
    return attempts == wanted and sizes == [row.size_bytes for row in rows]


def _has_no_gap(_: Service, case: Case) -> bool:
    """Its history is numbered from 1, and ends where the row says."""
    numbers = [event.seq for event in case.history]
    is_whole = numbers == list(range(1, case.job.event_seq + 1))
    is_over = case.job.status in TERMINAL
    return is_whole and (not is_over or case.history[-1].type == f"job.{case.job.status}")


PROMISES: Final[dict[str, Callable[[Service, Case], bool]]] = {
    "lost": _is_not_lost,
    "doubled": _is_not_doubled,
    "torn": _is_not_torn,
    "gaps": _has_no_gap,
}
