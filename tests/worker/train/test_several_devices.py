"""A job on several devices: the operator's launcher starts the trainer once for each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from shortft_core import catalog
from shortft_core.spec import AlignSpec
from store import jobs
from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import Service, service

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
# What `accelerate launch` calls for several GPUs; on a CPU it would start one process alone.
LAUNCH: Final = (
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    "-m", "worker.children.trainer",
)  # fmt: skip
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
    with service(stack, tmp_path, lease_seconds=30.0) as found:
        yield found


@pytest.mark.timeout(300)
def test_two_processes_work_on_one_job(running: Service) -> None:
    spec = catalog.resolve(AlignSpec.model_validate(SPEC))
    job_id = running.database.transact(
        lambda session: jobs.create(session, jobs.NewJob(spec=spec))
    ).id
    station = running.station(LAUNCH, grace_seconds=60.0, no_progress_seconds=600.0)
    job = running.work_off(job_id, station, 250)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1), job.log_tail
    invariants.check(running, job_id)
    steps = [event.data for event in running.events(job_id) if event.type == "job.metrics"]
    # One image of each process in each of two updates.
    assert [step["images_seen"] for step in steps] == [2, 4]
