"""The trainer's side of an attempt: what it says while nothing happens, and how it ends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shortft_core import run
from shortft_core.events import AlertRaised
from tests.faults.harness import spec_of
from worker import locks
from worker.children import trainer
from worker.children.lifeline import Lifeline
from worker.children.wire import Wire
from worker.protocol import ExitCode, TrainerJob, elapsed_seconds


class Heard(io.BytesIO):
    """What the supervisor reads."""

    def messages(self) -> list[str]:
        lines = [json.loads(line) for line in self.getvalue().splitlines()]
        return [line["data"]["phase"] if "data" in line else line["object"] for line in lines]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def attempt(heard: Heard, tmp_path: Path) -> trainer.Attempt:
    job = TrainerJob(
        job_id="job_a",
        lease_token=1,
        spec=spec_of(2, {}).model_dump(mode="json"),
        run_folder=str(tmp_path),
        lease_seconds=1000.0,
        renewed_at=elapsed_seconds(),
        hang_seconds=2000.0,
        locks=(str(tmp_path / "gpu-0.lock"),),
    )
    lifeline = Lifeline(job.lease_seconds, job.renewed_at)
    return trainer.Attempt(job, Wire(heard), lifeline)


def test_work_that_goes_on_says_so_now_and_then(
    attempt: trainer.Attempt, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not attempt.should_stop()
    assert heard.messages() == []
    monkeypatch.setattr(trainer, "ALIVE_SECONDS", 0.0)
    assert not attempt.should_stop()
    attempt.lifeline.ending = ExitCode.STOPPED
    assert attempt.should_stop()
    assert heard.messages() == ["alive", "alive"]


def test_waiting_for_a_lock_is_no_silence(
    attempt: trainer.Attempt, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "ALIVE_SECONDS", 0.0)
    stop = attempt.should_stop

    def stop_after_three() -> bool:
        attempt.lifeline.ending = ExitCode.STOPPED if heard.messages().count("alive") > 1 else None
        return stop()

    monkeypatch.setattr(attempt, "should_stop", stop_after_three)
    other = locks.try_lock(Path(attempt.job.locks[0]))
    assert other is not None
    ended = trainer._work(attempt.job, attempt, is_first=True)
    assert ended.code is ExitCode.STOPPED
    assert heard.messages() == ["waiting", "alive", "alive", "alive"]
    locks.unlock(other)


@pytest.mark.parametrize(
    ("ending", "actions", "code"),
    [
        (None, ["pause"], ExitCode.RESTING),
        (ExitCode.STOPPED, ["pause"], ExitCode.RESTING),
        (ExitCode.STOPPED, ["none"], ExitCode.STOPPED),
        (ExitCode.FENCED, [], ExitCode.FENCED),
    ],
)
def test_a_pause_of_the_guard_is_not_lost_beside_a_stop(
    attempt: trainer.Attempt,
    monkeypatch: pytest.MonkeyPatch,
    ending: ExitCode | None,
    actions: list[Any],
    code: ExitCode,
) -> None:
    def stopped(*_: object, emit: Callable[[AlertRaised], None], **__: object) -> SimpleNamespace:
        for action in actions:
            emit(AlertRaised(kind="reward_divergence", update=1, action=action))
        attempt.lifeline.ending = ending
        return SimpleNamespace(is_complete=False, halted=False)

    monkeypatch.setattr(run, "run_job", stopped)
    assert attempt.run() is code
