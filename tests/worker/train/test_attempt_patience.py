"""How long an attempt waits: for a trainer that says little, and for a store that is away."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shortft_core.events import LogLine, PhaseStarted, to_envelope
from store import jobs, leases, logs
from store.models import Job
from store.objects import StoredObject
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import Service
from worker.pipes import Child, Message
from worker.settings import child_environment
from worker.train.attempt import Attempt

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
GRACE_SECONDS = 33.0
QUIET = 'echo \'{"object": "alive"}\'; echo \'{"object": "ended", "code": 0}\''


@pytest.fixture
def attempt(running: Service) -> Iterator[Attempt]:
    """One that has claimed its job, and neither renews nor has a trainer yet."""
    running.create(updates=5)
    claimed = running.database.transact(lambda s: leases.claim(s, "wrk_a", ["default"]))
    assert claimed is not None
    context = running.station(grace_seconds=GRACE_SECONDS)._context
    folder = running.folder / "run"
    folder.mkdir()
    found = Attempt(context=context, claim=claimed, folder=folder, gpus=(), locks=())
    yield found
    if found.child is not None:
        found.child.kill()


def spawn(attempt: Attempt, script: str) -> Child:
    child = Child.spawn(["sh", "-c", script], env=child_environment({}), cwd=attempt.folder)
    attempt.child = child
    return child


def test_a_trainer_that_ends_without_a_word_is_no_success(running: Service) -> None:
    job = running.work_off(running.create(updates=3), running.station(["sh", "-c", "exit 0"]))
    assert (job.status, job.error_code, job.attempt) == (JobStatus.FAILED, "crashed", 3)


def test_a_sign_of_life_is_no_event_and_no_log_line(running: Service) -> None:
    job_id = running.create(updates=3)
    running.work_off(job_id, running.station(["sh", "-c", QUIET]))
    with running.database.read() as session:
        assert logs.after(session, job_id) == ()
    types = [event.type for event in running.events(job_id)]
    assert types == ["job.created", "job.preparing", "job.succeeded"]


def test_waiting_for_a_gpu_is_no_time_of_the_run(attempt: Attempt) -> None:
    attempt.claim.job.spec = {**attempt.claim.job.spec, "max_runtime_seconds": 1.0}
    attempt.began_at -= 1000.0
    assert attempt._is_overdue(time.monotonic())
    attempt._hear(to_envelope(PhaseStarted(phase="waiting")))
    assert attempt._is_overdue(time.monotonic())
    attempt._hear(to_envelope(PhaseStarted(phase="preparing")))
    assert not attempt._is_overdue(time.monotonic())


def test_storing_what_the_trainer_said_is_no_silence_of_it(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = attempt._hear

    def takes_long(message: Message) -> None:
        hear(message)
        attempt._heard_at -= 1000.0

    monkeypatch.setattr(attempt, "_hear", takes_long)
    said = json.dumps(to_envelope(LogLine(message="saved"))) + "\n"
    (attempt.folder / "said").write_text(said, encoding="utf-8")
    attempt._supervise(spawn(attempt, "cat said"))
    assert attempt.killed is None


@pytest.mark.parametrize(
    ("wish", "seconds"), [("pause", GRACE_SECONDS), ("cancel", 4.0), (None, 4.0)]
)
def test_the_last_checkpoint_of_a_pause_is_waited_for(
    attempt: Attempt, wish: str | None, seconds: float
) -> None:
    child = spawn(attempt, "sleep 60")
    attempt.keeper.wish = wish
    attempt._watch(child)
    assert attempt.storage.patience_seconds == seconds


def test_the_last_checkpoint_of_a_stop_is_waited_for(attempt: Attempt) -> None:
    child = spawn(attempt, "sleep 60")
    attempt.context.stopping.set()
    attempt._watch(child)
    assert attempt.storage.patience_seconds == GRACE_SECONDS


def test_a_shutdown_is_waited_for_from_when_it_began(attempt: Attempt) -> None:
    attempt.began_at -= 1000.0
    assert not attempt._gives_up()
    attempt.context.stopping.set()
    assert not attempt._gives_up()
    assert attempt._stopping_at is not None
    attempt._stopping_at -= GRACE_SECONDS
    assert attempt._gives_up()


@pytest.mark.parametrize(
    ("ask", "status"), [(jobs.cancel, JobStatus.CANCELLED), (jobs.pause, JobStatus.PAUSED)]
)
def test_a_result_that_nobody_wants_does_not_wait_for_a_full_store(
    running: Service,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[..., Job],
    status: JobStatus,
) -> None:
    job_id = running.create(updates=3)
    write_file = running.objects.write_file

    def is_full(key: str, source: Path) -> StoredObject:
        if "/artifacts/" not in key:
            return write_file(key, source)
        if running.job(job_id).status is JobStatus.RUNNING:
            running.database.transact(lambda session: ask(session, job_id))
        raise OSError(errno.ENOSPC, "No space left on device")

    station = running.station(control_seconds=0.05)
    with monkeypatch.context() as patch:
        patch.setattr(running.objects, "write_file", is_full)
        station.drain()
    job = running.job(job_id)
    assert (job.status, job.crashes, job.lost_leases) == (status, 0, 0)
    invariants.check(running, job_id)
    if status is JobStatus.PAUSED:
        running.database.transact(lambda session: jobs.resume(session, job_id))
        assert running.work_off(job_id, station).status is JobStatus.SUCCEEDED
        invariants.check(running, job_id, updates=3)
