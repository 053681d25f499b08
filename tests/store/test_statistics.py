from __future__ import annotations

from typing import TYPE_CHECKING

from shortft_core.events import RunStarted, StepMetrics
from store import events, jobs, leases, results, statistics
from store.leases import Report
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
        spans = statistics.job_spans(session, 10)
        newest = statistics.job_spans(session, 1)
    assert counts == {
        (JobStatus.SUCCEEDED, None): 1,
        (JobStatus.FAILED, "nan_loss"): 1,
        (JobStatus.CANCELLED, None): 1,
    }
    assert [span.worked_seconds is None for span in spans] == [True, False, False]
    assert all(span.worked_seconds >= 0 for span in spans if span.worked_seconds is not None)
    assert newest == spans[:1]


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
