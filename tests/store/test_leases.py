from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from shortft_core.events import CheckpointSaved, LogLine, RunStarted, SamplesReady
from store import events, jobs, leases, results
from store.attempts import Ending, Limits
from store.errors import InvalidStateError, LeaseLostError
from store.leases import Claim, Report
from store.models import Job
from store.states import JobStatus
from store.transitions import Lease

if TYPE_CHECKING:
    from tests.store.conftest import Bench

STARTED = RunStarted(spec_sha256="0" * 64, updates=3)
SAVED = CheckpointSaved(update=1, key="a/b", sha256="0" * 64, size_bytes=1)
Write = Callable[[Session, Lease], Any]
WRITES: dict[str, Write] = {
    "renew": leases.renew,
    "control": leases.control,
    "start": lambda session, lease: leases.start(session, lease, STARTED),
    "append": lambda session, lease: events.append(session, lease, [LogLine(message="a")]),
    "checkpoint": lambda session, lease: results.add_checkpoint(session, lease, SAVED),
    "samples": lambda session, lease: results.add_samples(
        session, lease, SamplesReady(update=1, pairs=()), {}
    ),
    "forget": lambda session, lease: results.forget_checkpoint(session, lease, "ckpt_x"),
    "succeed": lambda session, lease: results.succeed(session, lease, []),
    "fail": lambda session, lease: leases.fail(session, lease, Report()),
    "release": lambda session, lease: leases.release(session, lease, Ending.STOPPED),
}


def _release(bench: Bench, claim: Claim, ending: Ending = Ending.CRASHED, **report: str) -> Job:
    return bench.database.transact(
        lambda session: leases.release(session, claim.lease, ending, Report(**report))
    )


def _reclaim(bench: Bench, job_id: str) -> Claim:
    """Claims a job that backs off, as if the time had passed."""
    bench.set(Job, job_id, run_after=datetime.now(tz=UTC) - timedelta(hours=1))
    return bench.claim()


def _sweep(bench: Bench, limits: Limits | None = None) -> list[str]:
    swept = bench.database.transact(lambda session: leases.sweep(session, limits))
    return [job.id for job in swept]


def test_a_claim_is_a_lease_with_a_new_token(bench: Bench) -> None:
    job = bench.create()
    claim = bench.claim()
    assert claim.lease == Lease(job.id, token=1, owner="wrk_a", attempt=1)
    held = bench.get(job.id)
    assert (held.status, held.lease_owner) == (JobStatus.PREPARING, "wrk_a")
    assert held.lease_expires_at is not None
    assert held.heartbeat_at is not None
    assert held.lease_expires_at - held.heartbeat_at == timedelta(seconds=90)
    assert held.started_at is not None


def test_nothing_is_claimed_before_its_time_or_by_another_class(bench: Bench) -> None:
    job = bench.create(resource_class="cuda")
    with bench.database.write() as session:
        assert leases.claim(session, "wrk_a", ["default"]) is None
    bench.set(Job, job.id, run_after=datetime.now(tz=UTC) + timedelta(hours=1))
    with bench.database.write() as session:
        assert leases.claim(session, "wrk_a", ["default", "cuda"]) is None
    bench.set(Job, job.id, run_after=datetime.now(tz=UTC) - timedelta(seconds=1))
    with bench.database.write() as session:
        assert leases.claim(session, "wrk_a", ["default", "cuda"]) is not None


def test_renewal_moves_the_deadline(bench: Bench) -> None:
    job = bench.create()
    claim = bench.claim()
    bench.expire(Job, job.id)
    status = bench.database.transact(lambda session: leases.renew(session, claim.lease))
    assert status is JobStatus.PREPARING
    assert _sweep(bench) == []
    with bench.database.read() as session:
        assert leases.control(session, claim.lease) is JobStatus.PREPARING


def test_the_first_update_makes_it_running_with_the_trainers_own_event(bench: Bench) -> None:
    job = bench.create()
    claim = bench.claim()
    running = bench.database.transact(lambda session: leases.start(session, claim.lease, STARTED))
    assert (running.status, running.updates_total) == (JobStatus.RUNNING, 3)
    with bench.database.read() as session:
        last = events.after(session, job.id)[-1]
    assert (last.type, last.data["updates"]) == ("job.started", 3)
    with pytest.raises(InvalidStateError):
        bench.database.transact(lambda session: leases.start(session, claim.lease, STARTED))


def _loses_by_expiry(bench: Bench, claim: Claim) -> None:
    bench.expire(Job, claim.job.id)
    assert _sweep(bench) == [claim.job.id]


def _loses_to_another(bench: Bench, claim: Claim) -> None:
    _loses_by_expiry(bench, claim)
    assert _reclaim(bench, claim.job.id).lease.token > claim.lease.token


def _loses_by_release(bench: Bench, claim: Claim) -> None:
    _release(bench, claim)


def _loses_by_success(bench: Bench, claim: Claim) -> None:
    bench.database.transact(lambda session: results.succeed(session, claim.lease, []))


@pytest.mark.parametrize(
    "lose", [_loses_by_expiry, _loses_to_another, _loses_by_release, _loses_by_success]
)
def test_an_old_token_can_write_nothing(bench: Bench, lose: Callable[[Bench, Claim], None]) -> None:
    bench.create()
    claim = bench.claim()
    lose(bench, claim)
    before = _columns(bench, claim.job.id), bench.types(claim.job.id)
    for name, write in WRITES.items():
        with bench.database.write() as session, pytest.raises(LeaseLostError, match="no longer"):
            write(session, claim.lease)
        assert (_columns(bench, claim.job.id), bench.types(claim.job.id)) == before, name


def _columns(bench: Bench, job_id: str) -> dict[str, Any]:
    job = bench.get(job_id)
    return {name: getattr(job, name) for name in inspect(Job).columns.keys()}  # noqa: SIM118


def test_a_crash_waits_and_the_third_one_is_poison(bench: Bench) -> None:
    job = bench.create()
    for crashes in (1, 2):
        queued = _release(bench, bench.claim(), exit_cause="signal 11", log_tail="oops")
        assert (queued.status, queued.crashes) == (JobStatus.QUEUED, crashes)
        assert (queued.exit_cause, queued.log_tail) == ("signal 11", "oops")
        assert queued.error_code is None
        wait = queued.run_after - queued.updated_at
        assert 0.7 * 5 * crashes <= wait.total_seconds() <= 1.3 * 5 * crashes + 0.1
        bench.set(Job, job.id, run_after=datetime.now(tz=UTC) - timedelta(hours=1))
    failed = _release(bench, bench.claim(), error_code="out_of_memory", error_message="Too big.")
    assert failed.status is JobStatus.FAILED
    assert (failed.error_code, failed.error_message) == ("out_of_memory", "Too big.")
    assert bench.types(job.id)[-3:] == ["job.retrying", "job.preparing", "job.failed"]


def test_a_checkpoint_between_crashes_clears_the_job(bench: Bench) -> None:
    job = bench.create()
    for update in range(1, 8):
        claim = _reclaim(bench, job.id)
        saved = SAVED.model_copy(update={"update": update})
        with bench.database.write() as session:
            results.add_checkpoint(session, claim.lease, saved)
        assert _release(bench, claim).crashes == 1


def test_lost_workers_are_bad_luck_until_the_tenth(bench: Bench) -> None:
    job = bench.create()
    for lost in range(1, 10):
        _reclaim(bench, job.id)
        bench.expire(Job, job.id)
        assert _sweep(bench) == [job.id]
        queued = bench.get(job.id)
        assert queued.lease_token == 2 * lost
        assert (queued.status, queued.lost_leases, queued.crashes) == (JobStatus.QUEUED, lost, 0)
    _reclaim(bench, job.id)
    bench.expire(Job, job.id)
    _sweep(bench)
    failed = bench.get(job.id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, "worker_lost")


def test_an_orderly_stop_requeues_at_once(bench: Bench) -> None:
    job = bench.create()
    queued = _release(bench, bench.claim(), Ending.STOPPED)
    assert (queued.status, queued.attempt) == (JobStatus.QUEUED, 0)
    assert bench.claim().job.id == job.id
    assert bench.types(job.id) == ["job.created", "job.preparing", "job.queued", "job.preparing"]


@pytest.mark.parametrize(
    ("verb", "end"),
    [(jobs.cancel, JobStatus.CANCELLED), (jobs.pause, JobStatus.PAUSED)],
)
@pytest.mark.parametrize("ending", Ending)
def test_whatever_ends_the_attempt_the_users_verb_is_done(
    bench: Bench, verb: Callable[[Session, str], Job], end: JobStatus, ending: Ending
) -> None:
    job = bench.create()
    claim = bench.claim()
    bench.database.transact(lambda session: verb(session, job.id))
    if ending is Ending.LEASE_EXPIRED:
        bench.expire(Job, job.id)
        _sweep(bench)
    else:
        _release(bench, claim, ending)
    found = bench.get(job.id)
    assert (found.status, found.crashes, found.lost_leases) == (end, 0, 0)


def test_a_permanent_error_fails_the_job_without_another_attempt(bench: Bench) -> None:
    bench.create()
    claim = bench.claim()
    report = Report(error_code="invalid_config", error_message="No such column.")
    failed = bench.database.transact(lambda session: leases.fail(session, claim.lease, report))
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, "invalid_config")
    with bench.database.read() as session:
        last = events.after(session, failed.id)[-1]
    assert (last.type, last.level, last.message) == ("job.failed", "error", "No such column.")


def test_a_permanent_error_of_a_cancelled_job_is_a_cancel(bench: Bench) -> None:
    job = bench.create()
    claim = bench.claim()
    bench.database.transact(lambda session: jobs.cancel(session, job.id))
    done = bench.database.transact(lambda session: leases.fail(session, claim.lease, Report()))
    assert (done.status, done.error_code) == (JobStatus.CANCELLED, None)


def test_limits_can_be_chosen(bench: Bench) -> None:
    job = bench.create()
    bench.claim()
    bench.expire(Job, job.id)
    _sweep(bench, Limits(lost_leases=1))
    assert bench.get(job.id).status is JobStatus.FAILED


def test_a_sweep_takes_the_oldest_and_only_the_expired(bench: Bench) -> None:
    made = [bench.create() for _ in range(3)]
    for _ in made:
        bench.claim()
    for job in made[:2]:
        bench.expire(Job, job.id)
    with bench.database.write() as session:
        assert len(leases.sweep(session, limit=1)) == 1
    assert len(_sweep(bench)) == 1
    assert bench.get(made[2].id).status is JobStatus.PREPARING


def test_workers_are_told_of_due_jobs_once_in_a_while(bench: Bench) -> None:
    bench.create(resource_class="cuda")
    job = bench.create()

    def tell() -> frozenset[str]:
        return bench.database.transact(leases.unwoken)

    assert tell() == {"cuda", "default"}
    assert tell() == set()
    bench.set(Job, job.id, woken_at=datetime.now(tz=UTC) - timedelta(seconds=16))
    assert tell() == {"default"}
    bench.set(Job, job.id, woken_at=None, run_after=datetime.now(tz=UTC) + timedelta(hours=1))
    assert tell() == set()
