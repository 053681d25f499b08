from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from shortft_core.events import RunStarted, StepMetrics
from store import events, jobs, leases, results, statistics
from store.leases import Report
from store.models import Job
from store.pages import PageRequest
from store.states import JobStatus

if TYPE_CHECKING:
    from tests.store.conftest import Bench


def _step(update: int) -> StepMetrics:
    return StepMetrics(
        update=update,
        loss=0.5,
        reward=0.25,
        terms={"symmetry": 0.25},
        grad_norms={1: 1.0},
        learning_rate=1e-3,
        seconds=2.0,
        evaluations_with_gradient=1,
        evaluations_without_gradient=49,
        images_seen=4,
    )


def test_finished_jobs_are_counted_with_their_errors_and_times(bench: Bench) -> None:
    for _ in range(4):
        bench.create()
    done, failed = bench.claim().lease, bench.claim().lease
    bench.database.transact(lambda session: results.succeed(session, done, []))
    report = Report(error_code="nan_loss", error_message="not finite")
    bench.database.transact(lambda session: leases.fail(session, failed, report))
    with bench.database.read() as session:
        queued = jobs.page(session, jobs.JobFilter(), PageRequest()).rows[0].id
    bench.database.transact(lambda session: jobs.cancel(session, queued))
    with bench.database.read() as session:
        counts = statistics.finished_jobs(session)
    assert counts == {
        (JobStatus.SUCCEEDED, None): 1,
        (JobStatus.FAILED, "nan_loss"): 1,
        (JobStatus.CANCELLED, None): 1,
    }


def test_histograms_hold_all_finished_rows(bench: Bench) -> None:
    """However many: a count that falls would look like a restart to a monitor."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for worked in (0.5, 5.0, 90_061.25, None):
        job = bench.create()
        started = begin + timedelta(seconds=60)
        times = {"created_at": begin, "finished_at": started + timedelta(seconds=worked or 0)}
        bench.set(Job, job.id, status=JobStatus.CANCELLED, **times)
        bench.set(Job, job.id, started_at=None if worked is None else started)
    bench.create()
    with bench.database.read() as session:
        worked_found = statistics.job_durations(session, (0.1, 1, 5.5, 100_000))
        waited_found = statistics.job_waits(session, (59, 61))
        none = statistics.generation_durations(session, (1,))
    assert (worked_found.below, worked_found.count) == ((0, 1, 2, 3), 3)
    assert worked_found.total_seconds == pytest.approx(90_066.75, abs=1e-3)
    assert (waited_found.below, waited_found.count) == ((0, 3), 3)
    assert waited_found.total_seconds == pytest.approx(180.0, abs=1e-3)
    assert none == statistics.Histogram((0,), 0, 0.0)


def test_running_jobs_tell_their_latest_metrics(bench: Bench) -> None:
    job = bench.create()
    bench.create()
    lease = bench.claim().lease
    started = RunStarted(spec_sha256=job.spec_sha256, updates=3)
    bench.database.transact(lambda session: leases.start(session, lease, started))
    for update in (1, 2):
        with bench.database.write() as session:
            events.append(session, lease, [_step(update)])
    with bench.database.read() as session:
        told = statistics.running_metrics(session, 10)
    assert [(job_id, metrics["update"]) for job_id, metrics in told] == [(job.id, 2)]
