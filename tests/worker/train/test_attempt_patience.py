"""How long an attempt waits: for a trainer that says little, and for a store that is away."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shortft_core.events import LogLine, PhaseStarted, to_envelope
from store import jobs, leases, logs
from store.attempts import Ending
from store.leases import Claim
from store.models import Job
from store.objects import StoredObject
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import FAST_TRAINER, Service
from worker.pipes import Child, Message
from worker.protocol import TrainerJob, elapsed_seconds
from worker.settings import child_environment
from worker.train import attempt as attempt_module
from worker.train.attempt import Attempt

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
GRACE_SECONDS = 33.0
FROZEN_SECONDS = 1000.0
"""How long the worker did nothing after its claim."""
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
    found = Attempt(
        context=context,
        claim=claimed,
        claimed_at=elapsed_seconds() - FROZEN_SECONDS,
        folder=folder,
        gpus=(),
        locks=(),
    )
    yield found
    if found.child is not None:
        found.child.kill()


def spawn(attempt: Attempt, script: str) -> Child:
    child = Child.spawn(["sh", "-c", script], env=child_environment({}), cwd=attempt.folder)
    attempt.child = child
    return child


def renew_rarely(attempt: Attempt) -> None:
    """Only the first renewal of a lease that is old already comes within a test."""
    settings = attempt.context.store_settings
    attempt.keeper._settings = settings.model_copy(update={"heartbeat_seconds": 60.0})


def test_a_trainer_outlives_its_supervisors_patience_by_a_lease(attempt: Attempt) -> None:
    """So that a supervisor that lives is the one to end it, and can say why."""
    job = TrainerJob.model_validate_json(attempt._write_job({}).read_text())
    patience = attempt.context.settings.no_progress_seconds
    assert job.hang_seconds == patience + attempt.context.store_settings.lease_seconds


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


def test_a_lease_is_as_old_as_its_claim(running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    given = running.folder / "given"
    station = running.station(["sh", "-c", FAST_TRAINER, str(given)])
    begun: list[float] = []
    begin = station._attempt

    def begin_late(claim: Claim, claimed_at: float, slot: int) -> Attempt:
        begun.append(elapsed_seconds())
        found = begin(claim, claimed_at, slot)
        renew_rarely(found)
        return found

    monkeypatch.setattr(station, "_attempt", begin_late)
    asked_at = elapsed_seconds()
    running.create(updates=1)
    station.drain()
    job = TrainerJob.model_validate_json(given.read_text(encoding="utf-8").splitlines()[0])
    assert asked_at < job.renewed_at < begun[0]


def test_a_worker_that_was_frozen_renews_at_once(running: Service, attempt: Attempt) -> None:
    renew_rarely(attempt)
    thawed_at = elapsed_seconds()
    assert attempt.keeper.renewed_at < thawed_at
    attempt.keeper.start()
    running.until(lambda: attempt.keeper.renewed_at > thawed_at, 20.0)
    attempt.keeper.stop()


def test_a_pipe_that_is_held_is_not_waited_for(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what neither a mark nor a parent leads to."""
    monkeypatch.setattr(attempt_module, "_LINGER_SECONDS", 0.2)
    child = spawn(attempt, "env -i setsid sleep 60 & echo $! > holder; exit 1")
    child.process.wait()
    holder = int((attempt.folder / "holder").read_text())
    try:
        attempt._supervise(child)
        assert invariants.alive({holder}) == {holder}
    finally:
        os.kill(holder, signal.SIGKILL)
    assert attempt._conclusion(child).ending is Ending.CRASHED


def test_a_trainer_that_does_not_die_is_not_waited_for(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = spawn(attempt, "sleep 60")
    attempt._heard_at -= 1000.0
    with monkeypatch.context() as patch:
        patch.setattr(attempt_module, "_LINGER_SECONDS", 0.1)
        patch.setattr(child, "kill", lambda: None)
        attempt._supervise(child)
        conclusion = attempt._conclusion(child)
    assert invariants.alive({child.pid}) == {child.pid}
    assert conclusion.ending is Ending.CRASHED
    assert conclusion.report.exit_cause == "killed, because it gave no sign of life for 20 s"
