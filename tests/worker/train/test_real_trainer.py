"""The real trainer on the bundled model: what is killed and paused ends as if it never was."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from shortft_core import catalog, prompts
from shortft_core.spec import AlignSpec, PromptSource
from store import jobs, prompt_sets, results
from store.models import PromptSetRow
from store.settings import StoreSettings
from store.states import HELD, JobStatus
from tests.faults import invariants
from tests.faults.harness import Service, service
from tests.worker.train.here import TrainerHere
from worker.settings import WorkerSettings
from worker.train.supervisor import TrainStation

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
PATIENT = {"control_seconds": 0.05, "grace_seconds": 60.0, "no_progress_seconds": 600.0}
COMMAND = WorkerSettings.model_fields["trainer_command"].default


def create(running: Service, content: dict[str, Any]) -> str:
    spec = catalog.resolve(AlignSpec.model_validate(content))
    new = jobs.NewJob(spec=spec)
    return running.database.transact(lambda session: jobs.create(session, new)).id


@pytest.fixture
def running(stack: StoreSettings, tmp_path: Path) -> Iterator[Service]:
    # torch may keep a busy machine for longer than the light trainer's lease.
    with service(stack, tmp_path, lease_seconds=30.0) as found:
        yield found


@pytest.fixture
def content(running: Service) -> dict[str, Any]:
    texts = PromptSource(inline=("a red circle", "a blue star", "a green square"))
    found = prompts.load(texts)
    row = running.database.transact(
        lambda session: prompt_sets.create(session, "default", "mine", found)
    )
    return {
        "base_model": {"name": "shapes"},
        "method": {
            "type": "draft_k", "steps": 4, "rank": 2, "batch_size": 2, "updates": 10,
            "checkpoint_every": 2, "guidance_scale": 1.0,
        },
        "rewards": [{"name": "brightness"}],
        "prompts": {"id": row.id},
        "evaluation": {
            "prompts": {"inline": ["a red star"]}, "every_updates": 4, "held_out": [],
        },
    }  # fmt: skip


@contextmanager
def working(station: TrainStation) -> Iterator[None]:
    """Drains again and again in another thread."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.1):
            station.drain()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        station._context.stopping.set()
        thread.join()


def artifacts(running: Service, job_id: str) -> dict[str, str]:
    with running.database.read() as session:
        return {row.kind: row.sha256 for row in results.artifacts(session, job_id)}


@pytest.fixture
def here(tmp_path: Path) -> TrainerHere:
    return TrainerHere(tmp_path)


@pytest.mark.timeout(600)  # twice torch; a busy machine takes half a minute for one
def test_interruptions_change_no_bit(
    running: Service, content: dict[str, Any], here: TrainerHere
) -> None:
    job_id = create(running, content)
    with working(running.station(COMMAND, **PATIENT)):
        _until_update(running, job_id, 2)
        [trainer] = _trainers(running.folder)
        os.kill(trainer, signal.SIGKILL)
        with running.database.write() as session:
            session.execute(delete(PromptSetRow))
        _until_update(running, job_id, 4)
        running.database.transact(lambda session: jobs.pause(session, job_id))
        paused = running.until_status(job_id, {JobStatus.PAUSED}, 60)
        assert 4 <= paused.resumable_update < 10
    inline = ["a red circle", "a blue star", "a green square"]
    whole = create(running, content | {"prompts": {"inline": inline}})
    with working(running.station(here.command, **PATIENT)):
        here.work()
        uninterrupted = running.until_status(whole)
        running.database.transact(lambda session: jobs.resume(session, job_id))
        here.work()
        job = running.until_status(job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    invariants.check(running, job_id)
    assert (uninterrupted.status, uninterrupted.attempt) == (JobStatus.SUCCEEDED, 1)
    ours, theirs = artifacts(running, job_id), artifacts(running, whole)
    assert ours.keys() == theirs.keys()
    assert {"adapter", "best", "report", "spec", "branch_1", "peft_branch_1"} < ours.keys()
    assert ours["peft_branch_1"] == theirs["peft_branch_1"]
    assert ours["best_peft_branch_1"] == theirs["best_peft_branch_1"]


def test_a_wrong_specification_ends_at_once(
    running: Service, content: dict[str, Any], here: TrainerHere
) -> None:
    job_id = create(running, content | {"base_model": {"path": "/nowhere"}})
    with working(running.station(here.command, **PATIENT)):
        here.work()
        job = running.until_status(job_id)
    assert (job.status, job.attempt, job.error_code) == (JobStatus.FAILED, 1, "model_not_found")
    assert "/nowhere" in str(job.error_message)


def _until_update(running: Service, job_id: str, update: int) -> None:
    def has_come() -> bool:
        job = running.job(job_id)
        assert job.status in {JobStatus.QUEUED, *HELD}, job.error_message
        return job.resumable_update >= update

    running.until(has_come, 200)


def _trainers(folder: Path) -> list[int]:
    """Processes of trainers whose job file lies below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if command[-2:-1] and command[-2].startswith(str(folder).encode()):
            found.append(int(path.parent.name))
    return found
