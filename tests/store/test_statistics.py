from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shortft_core.events import RunStarted, StepMetrics
from store import events, generation_leases, generations, jobs, leases, results, statistics
from store.leases import Report
from store.models import Job
from store.pages import PageRequest
from store.states import GenerationStatus, JobStatus
from tests.store.serving import IMAGE, claim, create

if TYPE_CHECKING:
    from tests.store.conftest import Bench

S = GenerationStatus


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


def test_what_was_deleted_is_still_counted(bench: Bench) -> None:
    """Or a monitor would take the fall of a counter for a restart."""
    bench.create()
    lease = bench.claim().lease
    report = Report(error_code="nan_loss", error_message="not finite")
    bench.database.transact(lambda session: leases.fail(session, lease, report))
    made = create(bench).id
    (claimed,) = claim(bench)
    bench.database.transact(lambda s: generation_leases.succeed(s, claimed.lease, [IMAGE]))
    waiting = create(bench).id
    before = _figures(bench)
    assert before[0] == {(JobStatus.FAILED, "nan_loss"): 1}
    assert before[1] == {S.SUCCEEDED: 1, S.FAILED: 0, S.CANCELLED: 0}
    assert [histogram.count for histogram in before[2:]] == [1, 1, 1]
    bench.database.transact(lambda session: jobs.remove(session, lease.row_id))
    bench.database.transact(lambda session: generations.remove(session, made, "default"))
    with bench.database.read() as session:
        assert jobs.count_by_status(session)[JobStatus.FAILED] == 0
        assert generations.count_by_status(session)[S.SUCCEEDED] == 0
    assert _figures(bench) == before
    bench.database.transact(lambda session: generations.cancel(session, waiting, "default"))
    assert _figures(bench)[1] == {S.SUCCEEDED: 1, S.FAILED: 0, S.CANCELLED: 1}


def _figures(bench: Bench) -> tuple[Any, ...]:
    with bench.database.read() as session:
        return (
            statistics.finished_jobs(session),
            statistics.finished_generations(session),
            statistics.job_durations(session, (1e6,)),
            statistics.job_waits(session, (1e6,)),
            statistics.generation_durations(session, (1e6,)),
        )


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
