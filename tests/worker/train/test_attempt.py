"""Attempts with a trainer process of their own: what becomes of the job, however they end."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store import jobs, leases, logs, results
from store.attempts import Limits
from store.objects import StoredObject
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import Service
from worker.train.supervisor import TrainStation

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


@contextmanager
def working(running: Service, station: TrainStation) -> Iterator[Callable[[], None]]:
    """Drains in another thread; yields what waits for it."""
    thread = threading.Thread(target=station.drain)
    thread.start()
    yield thread.join
    thread.join()


def types(running: Service, job_id: str) -> list[str]:
    return [event.type for event in running.events(job_id)]


def test_a_finished_job_leaves_rows_and_objects_and_no_run_folder(running: Service) -> None:
    job_id = running.create(updates=12, evaluate_every=5)
    job = running.work_off(job_id, running.station())
    invariants.check(running, job_id, updates=12)
    left = [path for path in (running.folder / "work").rglob("*") if path.is_file()]
    assert [path.parent.name for path in left] == ["runs"]  # the lock of the living worker
    assert (job.status, job.attempt, job.updates_completed) == (JobStatus.SUCCEEDED, 1, 12)
    assert (job.best_update, job.best_prefix) == (10, f"jobs/{job_id}/best/000010.t1/")
    with running.database.read() as session:
        kinds = {row.kind for row in results.artifacts(session, job_id)}
        samples = results.samples(session, job_id)
        adapter = jobs.get(session, job_id).adapter
    both = {f"{begin}{kind}" for begin in ("", "best_") for kind in ("branch_1", "card")}
    assert kinds == both | {"adapter", "best", "report", "spec"}
    assert [(row.update, row.kind) for row in samples] == [
        (update, kind) for update in (5, 10) for kind in ("base", "tuned")
    ]
    assert all(running.objects.read(row.object_key, sha256=row.sha256) for row in samples)
    assert adapter is not None
    assert running.objects.exists(adapter.prefix + "shortft.json")
    assert running.objects.exists(str(job.best_prefix) + "shortft.json")


def test_only_the_newest_checkpoints_stay(running: Service) -> None:
    job_id = running.create(updates=22)
    running.work_off(job_id, running.station())
    with running.database.read() as session:
        rows = results.checkpoints(session, job_id)
    assert [row.update for row in rows] == [22, 20]
    stored = running.objects.list(f"jobs/{job_id}/checkpoints/")
    assert len(stored) == 2 * len(("state", "manifest", "branch", "card"))
    assert all(running.objects.read(row.object_key, sha256=row.sha256) for row in rows)


def test_a_killed_trainer_is_resumed_by_the_next(running: Service) -> None:
    job_id = running.create(updates=30, step_seconds=0.05)
    station = running.station()
    with working(running, station) as done:
        line = running.until_update(job_id, 12)
        os.kill(line.pid, signal.SIGKILL)
        done()
    retry = next(event for event in running.events(job_id) if event.type == "job.retrying")
    assert (retry.data["ending"], retry.data["crashes"]) == ("crashed", 1)
    assert retry.data["exit_cause"] == "killed by SIGKILL, probably out of memory"
    assert running.work_off(job_id, station).status is JobStatus.SUCCEEDED
    invariants.check(running, job_id, updates=30)
    resumed = [line.update for line in running.lines() if line.what == "start"]
    assert len(resumed) == 2
    assert resumed[1] >= 10


def test_a_hanging_trainer_is_killed(running: Service) -> None:
    job_id = running.create(updates=8, fault="once-hang@7")
    station = running.station(no_progress_seconds=4.0)
    job = running.work_off(job_id, station)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    invariants.check(running, job_id, updates=8)
    retry = next(event for event in running.events(job_id) if event.type == "job.retrying")
    assert retry.data["ending"] == "crashed"
    assert retry.data["exit_cause"] == "killed, because it gave no sign of life for 4 s"


def test_poison_jobs_end_and_spare_the_others(running: Service) -> None:
    faults = {
        "segfault@3": (3, "crashed", "killed by SIGSEGV"),
        "crash@3": (3, "crashed", "exit code 1"),
        "memory@3": (3, "out_of_memory", "no memory for update 3"),
        "refuse": (1, "invalid_config", "method: it is poison. Take another"),
    }
    poison = {fault: running.create(updates=9, fault=fault) for fault in faults}
    innocent = running.create(updates=2)
    station = running.station()
    for fault, (attempts, code, said) in faults.items():
        job = running.work_off(poison[fault], station, 100.0)
        assert (job.status, job.error_code, job.error_message) == (JobStatus.FAILED, code, said)
        assert types(running, job.id).count("job.preparing") == attempts
    assert running.work_off(innocent, station).status is JobStatus.SUCCEEDED
    assert running.job(innocent).attempt == 1
    for job_id in (*poison.values(), innocent):
        invariants.check(running, job_id)
    _check_log_of_a_crash(running, poison["crash@3"])


def _check_log_of_a_crash(running: Service, job_id: str) -> None:
    """It is kept, of every attempt."""
    said = "RuntimeError: the contract is broken"
    assert said in str(running.job(job_id).log_tail)
    with running.database.read() as session:
        texts = [line.text for line in logs.after(session, job_id)]
    assert texts.count(said) == 3


def test_a_running_job_is_cancelled_once(running: Service) -> None:
    job_id = running.create(updates=1000)
    with working(running, running.station()) as done:
        running.until_update(job_id, 3)
        running.database.transact(lambda session: jobs.cancel(session, job_id))
        done()
    assert running.job(job_id).status is JobStatus.CANCELLED
    invariants.check(running, job_id)
    assert not invariants.alive(invariants.trainers(running))


def test_a_cancel_before_the_commit_wins(running: Service) -> None:
    job_id = running.create(updates=5)
    station = running.station(control_seconds=100.0)

    def cancel(key: str) -> bool:
        if "/artifacts/" in key and running.job(job_id).status is JobStatus.RUNNING:
            running.database.transact(lambda session: jobs.cancel(session, job_id))
        return False

    _refuse(running, cancel)
    station.drain()
    assert running.job(job_id).status is JobStatus.CANCELLED
    invariants.check(running, job_id)


def test_pausing_again_and_again_changes_nothing(running: Service) -> None:
    job_id = running.create(updates=33, step_seconds=0.01, checkpoint_every=1000)
    station = running.station(control_seconds=0.05)
    for number in range(1, 3):
        with working(running, station) as done:
            running.until_update(job_id, 3 * number, token=number)
            running.database.transact(lambda session: jobs.pause(session, job_id))
            done()
        assert running.job(job_id).status is JobStatus.PAUSED
        running.database.transact(lambda session: jobs.resume(session, job_id))
    job = running.work_off(job_id, station)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    invariants.check(running, job_id, updates=33)
    made = [line.update for line in running.lines() if line.what == "update"]
    assert made == list(range(1, 34))


def test_the_guard_pauses_the_job(running: Service) -> None:
    job_id = running.create(updates=6, fault="alert@4")
    station = running.station()
    station.drain()
    job = running.job(job_id)
    assert (job.status, job.resumable_update) == (JobStatus.PAUSED, 4)
    assert "job.alert" in types(running, job_id)
    running.database.transact(lambda session: jobs.resume(session, job_id))
    assert running.work_off(job_id, station).status is JobStatus.SUCCEEDED
    invariants.check(running, job_id, updates=6)


def test_a_stopping_worker_gives_the_job_back(running: Service) -> None:
    job_id = running.create(updates=60, step_seconds=0.05)
    station = running.station()
    with working(running, station) as done:
        running.until_update(job_id, 3)
        station._context.stopping.set()
        station.stop()
        done()
    job = running.job(job_id)
    assert (job.status, job.attempt, job.crashes, job.lost_leases) == (JobStatus.QUEUED, 0, 0, 0)
    assert job.resumable_update == max(line.update for line in running.lines())


def test_a_damaged_checkpoint_is_passed_over(running: Service) -> None:
    job_id = running.create(updates=17, fault="alert@13")
    station = running.station()
    station.drain()
    running.database.transact(lambda session: jobs.resume(session, job_id))
    with running.database.read() as session:
        newest, older = results.checkpoints(session, job_id)
    data = bytearray(running.objects.read(newest.object_key))
    data[3] ^= 1
    running.objects.write(newest.object_key, bytes(data))
    assert running.work_off(job_id, station).status is JobStatus.SUCCEEDED
    invariants.check(running, job_id, updates=17)
    starts = [line.update for line in running.lines() if line.what == "start"]
    assert (newest.update, older.update, starts) == (13, 10, [0, 10])
    messages = [event.message for event in running.events(job_id)]
    assert "checkpoint 13 is damaged; an older state is resumed from" in messages


def test_a_job_of_another_worker_is_let_go(running: Service) -> None:
    job_id = running.create(updates=200, step_seconds=0.05)
    with working(running, running.station()) as done:
        line = running.until_update(job_id, 2)
        with running.database.write() as session:
            session.connection().exec_driver_sql("UPDATE jobs SET lease_token = lease_token + 1")
        done()
    assert not invariants.alive({line.pid})
    assert running.job(job_id).status is JobStatus.RUNNING
    invariants.check(running, job_id)


def test_a_retry_goes_on_from_its_parents_checkpoint(running: Service) -> None:
    parent = running.create(updates=17, fault="alert@13", evaluate_every=5)
    station = running.station()
    station.drain()
    running.database.transact(lambda session: jobs.cancel(session, parent))
    child = running.database.transact(lambda session: jobs.retry(session, parent)).id
    assert running.work_off(child, station).status is JobStatus.SUCCEEDED
    invariants.check(running, child, updates=17)
    starts = {line.job_id: line.update for line in running.lines() if line.what == "start"}
    assert starts == {parent: 0, child: 13}


def test_a_checkpoint_that_cannot_be_stored_is_told_of(running: Service) -> None:
    job_id = running.create(updates=12)
    _refuse(running, lambda key: "/checkpoints/000005" in key)
    station = running.station()
    assert running.work_off(job_id, station).status is JobStatus.SUCCEEDED
    invariants.check(running, job_id, updates=12)
    warnings = [event.message for event in running.events(job_id) if event.level == "warn"]
    assert len(warnings) == 1
    assert warnings[0].startswith("checkpoint 5: ")
    assert warnings[0].endswith("No space left on device; the job goes on")


def test_a_result_waits_for_a_store_that_is_full(running: Service) -> None:
    job_id = running.create(updates=2)
    refused: list[str] = []

    def is_full(key: str) -> bool:
        if "/artifacts/" in key and len(refused) < 3:
            refused.append(key)
            return True
        return False

    _refuse(running, is_full)
    job = running.work_off(job_id, running.station())
    assert (job.status, job.attempt, len(refused)) == (JobStatus.SUCCEEDED, 1, 3)
    invariants.check(running, job_id, updates=2)


def test_lost_workers_are_no_poison(running: Service) -> None:
    job_id = running.create(updates=3)
    for _ in range(9):
        running.database.transact(
            lambda session: leases.claim(session, "wrk_lost", ["default"], lease_seconds=-1.0)
        )
        running.database.transact(lambda session: leases.sweep(session, Limits(backoff_seconds=0)))
    job = running.job(job_id)
    assert (job.status, job.lost_leases, job.crashes) == (JobStatus.QUEUED, 9, 0)
    assert running.work_off(job_id, running.station()).status is JobStatus.SUCCEEDED
    invariants.check(running, job_id, updates=3)


def test_a_trainer_that_cannot_be_started(running: Service) -> None:
    job_id = running.create(updates=3)
    job = running.work_off(job_id, running.station(["/nowhere/at/all"]))
    assert (job.status, job.error_code) == (JobStatus.FAILED, "internal")
    assert "no trainer could be started" in str(job.error_message)


def _refuse(running: Service, is_full: Callable[[str], bool]) -> None:
    """Lets the object store run full for some keys."""
    real = running.objects.write_file

    def write_file(key: str, source: Path) -> StoredObject:
        if is_full(key):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(key, source)

    running.objects.write_file = write_file  # type: ignore[method-assign]
