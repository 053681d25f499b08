"""A worker process without messages: its row, its settings, and the kinds there are."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store import workers
from store.engine import open_database
from store.models import Worker
from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults.harness import CONTRACT, TIMES, service
from worker.__main__ import main
from worker.process import KINDS, WorkerProcess
from worker.settings import WorkerSettings

ON_SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_builder(kind: str) -> None:
    module, _, name = KINDS[kind].partition(":")  # type: ignore[index]
    assert callable(getattr(importlib.import_module(module), name))


@ON_SQLITE
def test_a_message_that_comes_early_waits_for_the_row(stack: StoreSettings, tmp_path: Path) -> None:
    """A claim copies the device from it."""
    settings = WorkerSettings(work_dir=tmp_path / "work", grace_seconds=5.0)
    process = WorkerProcess("default", 1, stack.model_copy(update=TIMES), settings)
    message = threading.Thread(target=process.drain)
    message.start()
    message.join(0.3)
    assert message.is_alive()
    process.start()
    message.join(30.0)
    assert not message.is_alive()
    process.stop()


@ON_SQLITE
def test_it_says_that_it_lives_and_that_it_ends(stack: StoreSettings, tmp_path: Path) -> None:
    scaled = stack.model_copy(update=TIMES)
    settings = WorkerSettings(work_dir=tmp_path / "work", grace_seconds=5.0)
    process = WorkerProcess("default", 1, scaled, settings)
    database = open_database(stack.database_address())
    process.start()

    def rows() -> tuple[Worker, ...]:
        with database.read() as session:
            return workers.alive(session)

    until(lambda: len(rows()) == 1)
    first = rows()[0].heartbeat_at
    until(lambda: rows()[0].heartbeat_at > first)
    assert (rows()[0].kind, rows()[0].state) == ("default", "ready")
    process.stop()
    assert rows() == ()
    database.close()


class Busy:
    """A station whose work ends when the test says so."""

    def __init__(self) -> None:
        self.begun, self.done = threading.Event(), threading.Event()

    def drain(self) -> None:
        self.begun.set()
        self.done.wait(60)

    def stop(self) -> None:
        return


@ON_SQLITE
def test_it_says_that_it_lives_until_its_work_has_ended(
    stack: StoreSettings, tmp_path: Path
) -> None:
    scaled = stack.model_copy(update={**TIMES, "heartbeat_seconds": 0.1})
    process = WorkerProcess("default", 1, scaled, WorkerSettings(work_dir=tmp_path / "work"))
    process.station = busy = Busy()
    database = open_database(stack.database_address())
    process.start()
    assert busy.begun.wait(30)
    stopping = threading.Thread(target=process.stop)
    stopping.start()

    def row() -> Worker:
        with database.read() as session:
            return workers.alive(session)[0]

    until(lambda: row().state == "draining")
    first = row().heartbeat_at
    until(lambda: row().heartbeat_at > first)
    assert row().state == "draining"
    busy.done.set()
    stopping.join()
    with database.read() as session:
        assert workers.alive(session) == ()
    database.close()


@ON_SQLITE
def test_the_sweeper_alone_starts_work(stack: StoreSettings, tmp_path: Path) -> None:
    settings = WorkerSettings(
        work_dir=tmp_path / "work",
        grace_seconds=5.0,
        trainer_command=(sys.executable, str(CONTRACT)),
    )
    with service(stack, tmp_path) as running:
        process = WorkerProcess("train", 1, running.settings, settings)
        process.start()
        # Nobody takes the messages.
        job_ids = [running.create(updates=2) for _ in range(2)]
        for job_id in job_ids:
            assert running.until_status(job_id).status is JobStatus.SUCCEEDED
        process.stop()


def test_the_supervisors_start_without_torch() -> None:
    script = (
        "import sys, worker.app, worker.train.supervisor, worker.chores, worker.children.lifeline\n"
        "print([name for name in ('torch', 'diffusers', 'fastapi') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_an_unknown_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["paint"])
    assert ended.value.code == 2
    assert "invalid choice: 'paint'" in capsys.readouterr().err
