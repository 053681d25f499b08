"""A job on several devices: the operator's launcher starts the trainer once for each."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from shortft_core import catalog
from shortft_core.spec import AlignSpec
from store import jobs
from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import Service, service
from worker.pipes import Child
from worker.train import attempt as attempt_module
from worker.train.attempt import Attempt
from worker.train.supervisor import TrainStation

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
# What `accelerate launch` calls for several GPUs; on a CPU it would start one process alone.
LAUNCH: Final = (
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
)  # fmt: skip
TRAINER: Final = ("-m", "worker.children.trainer")
HANG: Final = """
import os, sys, time
from pathlib import Path
from worker.children import trainer

def hang(*_, **__):
    begun = Path(sys.argv[1], os.environ["RANK"])
    begun.with_suffix(".new").write_text(str(os.getpid()))
    begun.with_suffix(".new").rename(begun)
    while True:
        time.sleep(1.0)

trainer._work = hang
trainer.main(sys.argv[2:])
"""
"""The real trainer, but for its work: it notes its process, and never looks at anything again."""
SPEC: Final = {
    "base_model": {"name": "shapes"},
    "method": {
        "type": "draft_k", "steps": 4, "rank": 2, "batch_size": 1, "updates": 2,
        "guidance_scale": 1.0,
    },
    "rewards": [{"name": "brightness"}],
    "prompts": {"inline": ["a red circle", "a blue star"]},
    "evaluation": {"prompts": {"inline": ["a red star"]}, "every_updates": 2, "held_out": []},
}  # fmt: skip


@pytest.fixture
def running(stack: StoreSettings, tmp_path: Path) -> Iterator[Service]:
    # Once an attempt has failed, its job shall not begin again within a test.
    with service(stack, tmp_path, lease_seconds=30.0, backoff_seconds=60.0) as found:
        yield found


@dataclass
class Hang:
    """A station at work on a job whose trainer hangs, in two processes of a launcher."""

    running: Service
    station: TrainStation
    folder: Path
    """Of the numbers of the processes."""
    attempts: list[Attempt] = field(default_factory=list)

    def begin(self, *given: Any) -> Attempt:
        self.attempts.append(TrainStation._attempt(self.station, *given))
        return self.attempts[-1]

    @property
    def launcher(self) -> Child:
        child = self.attempts[0].child
        assert child is not None
        return child

    def is_alive(self, *ranks: int) -> bool:
        """All of these."""
        files = [self.folder / str(rank) for rank in ranks]
        if not all(file.exists() for file in files):
            return False
        pids = {int(file.read_text()) for file in files}
        return invariants.alive(pids) == pids


@pytest.fixture
def hang(running: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hang]:
    script = tmp_path / "hang.py"
    script.write_text(HANG, encoding="utf-8")
    ranks = tmp_path / "ranks"
    ranks.mkdir()
    command = (*LAUNCH, str(script), str(ranks))
    station = running.station(command, grace_seconds=600.0, no_progress_seconds=600.0)
    found = Hang(running, station, ranks)
    monkeypatch.setattr(station, "_attempt", found.begin)
    running.create(updates=1)
    thread = threading.Thread(target=station.drain)
    thread.start()
    try:
        running.until(lambda: found.is_alive(0, 1))
        yield found
    finally:
        for attempt in found.attempts:
            if attempt.child is not None:
                attempt.child.kill()
        thread.join()


@pytest.mark.timeout(300)
def test_two_processes_work_on_one_job(running: Service) -> None:
    spec = catalog.resolve(AlignSpec.model_validate(SPEC))
    job_id = running.database.transact(
        lambda session: jobs.create(session, jobs.NewJob(spec=spec))
    ).id
    station = running.station((*LAUNCH, *TRAINER), grace_seconds=60.0, no_progress_seconds=600.0)
    job = running.work_off(job_id, station, 250)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1), job.log_tail
    invariants.check(running, job_id)
    steps = [event.data for event in running.events(job_id) if event.type == "job.metrics"]
    # One image of each process in each of two updates.
    assert [step["images_seen"] for step in steps] == [2, 4]


def check_crash(hang: Hang, cause: str) -> None:
    """The slot is free, no process is left, and the job waits for its next attempt."""
    hang.running.until(lambda: not hang.station.is_busy, 30.0)
    assert [rank for rank in (0, 1) if hang.is_alive(rank)] == []
    job = hang.running.job(hang.attempts[0].claim.job.id)
    assert (job.status, job.attempt, job.crashes) == (JobStatus.QUEUED, 1, 1)
    assert job.exit_cause == cause
    invariants.check(hang.running, job.id)


def test_processes_that_hang_are_killed_with_their_launcher(hang: Hang) -> None:
    def is_free() -> bool:
        hang.attempts[0]._heard_at -= 600.0
        return not hang.station.is_busy

    hang.running.until(is_free, 30.0)
    check_crash(hang, "killed, because it gave no sign of life for 600 s")


def test_processes_that_hang_do_not_outlive_their_launcher(
    hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "_LINGER_SECONDS", 600.0)
    os.kill(hang.launcher.pid, signal.SIGKILL)
    # The first one is asked to save its work, and the others can do nothing without it.
    hang.running.until(lambda: not hang.is_alive(1), 30.0)
    assert hang.is_alive(0)
    monkeypatch.setattr(attempt_module, "_LINGER_SECONDS", 1.0)
    check_crash(hang, "killed by SIGKILL, probably out of memory")
