"""Worker processes under faults, at scaled times: nothing lost, nothing doubled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import jobs, workers
from store.broker import Queue
from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import TIMES, Service, forked_service

ON_SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("stack", ["postgresql"], indirect=True)


@pytest.fixture
def running(stack: StoreSettings, tmp_path: Path) -> Iterator[Service]:
    with forked_service(stack, tmp_path) as found:
        yield found


def test_a_job_runs_from_the_message_to_its_result(running: Service) -> None:
    worker = running.start_worker()
    job_id = running.create(updates=12, evaluate_every=5)
    job = running.until_status(job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    invariants.check(running, job_id, updates=12)
    with running.database.read() as session:
        [row] = workers.alive(session)
    assert (row.pid, row.kind, row.slots) == (worker.pid, "train", 1)
    assert job.device == row.device
    worker.terminate()
    assert worker.wait() == 0
    with running.database.read() as session:
        assert workers.alive(session) == ()


@pytest.mark.parametrize("both", [False, True], ids=["worker", "worker and trainer"])
@ON_POSTGRESQL
def test_a_killed_worker_is_replaced(running: Service, both: bool) -> None:  # noqa: FBT001
    victim = running.start_worker()
    job_id = running.create(updates=30, step_seconds=0.1)
    line = running.until_update(job_id, 7)
    running.until(lambda: running.job(job_id).resumable_update >= 5)
    victim.kill()
    if both:
        os.kill(line.pid, signal.SIGKILL)
    running.start_worker()
    # Long before its work would be done.
    running.until(lambda: not invariants.alive({line.pid}))
    job = running.until_status(job_id)
    invariants.check(running, job_id, updates=30)
    assert (job.status, job.crashes, job.attempt) == (JobStatus.SUCCEEDED, 0, 2)
    second = [line.update for line in running.lines() if line.what == "start"][1]
    assert second >= 5


@ON_SQLITE
def test_a_frozen_worker_publishes_nothing(running: Service) -> None:
    frozen = running.start_worker()
    job_id = running.create(updates=50, step_seconds=0.1)
    line = running.until_update(job_id, 3)
    frozen.freeze()
    other = running.start_worker()
    # Its trainer ends by itself: nobody renews the lease, and nobody tells it to.
    running.until(lambda: not invariants.alive({line.pid}))
    running.until_update(job_id, 8, token=3)
    frozen.thaw()
    job = running.until_status(job_id)
    invariants.check(running, job_id, updates=50)
    assert (job.status, job.lost_leases) == (JobStatus.SUCCEEDED, 1)
    assert other.process.poll() is None
    assert {event.data.get("ending") for event in running.events(job_id)} == {
        None,
        "lease_expired",
    }


@ON_SQLITE
def test_a_worker_that_is_told_to_stop_loses_no_update(running: Service) -> None:
    first = running.start_worker()
    job_id = running.create(updates=20, step_seconds=0.1, checkpoint_every=1000)
    running.until_update(job_id, 5)
    first.terminate()
    first.terminate()
    assert first.wait() == 0
    job = running.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
    running.start_worker()
    running.until_status(job_id)
    invariants.check(running, job_id, updates=20)
    made = [line.update for line in running.lines() if line.what == "update"]
    assert made == list(range(1, 21))


@ON_SQLITE
def test_stale_and_torn_messages_start_nothing(running: Service) -> None:
    folder = running.settings.message_folder()
    worker = running.start_worker()
    first = running.create(updates=3)
    running.until_status(first)
    (folder / "0_torn.train.msg").write_bytes(b'{"body": "W1tdLCB7f')
    (folder / "0_empty.train.msg").write_bytes(b"")
    for _ in range(20):
        running.doorbell.ring(Queue.TRAIN)
        time.sleep(0.01)
    second = running.create(updates=3)
    job = running.until_status(second)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    assert [line.what for line in running.lines()].count("start") == 2
    assert worker.process.poll() is None


@ON_SQLITE
def test_a_worker_needs_no_message(running: Service) -> None:
    running.settings = running.settings.model_copy(
        update={"data_dir": running.settings.data_dir, "redis_url": None}
    )
    running.extra_env["SHORTFT_REDIS_URL"] = "redis://127.0.0.1:1/0"
    worker = running.start_worker()
    job_id = running.create(updates=3)
    assert running.until_status(job_id).status is JobStatus.SUCCEEDED
    worker.terminate()
    assert worker.wait() == 0


@ON_SQLITE
def test_a_queued_job_that_is_cancelled_never_runs(running: Service) -> None:
    job_id = running.create(updates=3)
    running.database.transact(lambda session: jobs.cancel(session, job_id))
    running.start_worker()
    other = running.create(updates=3)
    running.until_status(other)
    assert running.job(job_id).status is JobStatus.CANCELLED
    assert {line.job_id for line in running.lines()} == {other}
    invariants.check(running, job_id)


@ON_SQLITE
def test_two_slots_work_at_the_same_time(running: Service) -> None:
    running.start_worker(slots=2)
    both = [running.create(updates=40, step_seconds=0.1) for _ in range(2)]
    running.until(lambda: {running.job(one).status for one in both} == {JobStatus.RUNNING})
    for job_id in both:
        running.until_status(job_id)
        invariants.check(running, job_id, updates=40)


def test_the_scaled_times_keep_their_order() -> None:
    assert TIMES["heartbeat_seconds"] * 4 <= TIMES["lease_seconds"] * 0.8
