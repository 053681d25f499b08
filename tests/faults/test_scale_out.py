"""Several workers on one queue: each job runs once, and one worker's death stops none of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import func, select

from store.models import Job, Worker
from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import FAST_TRAINER, Service, forked_service

JOBS: Final = 32


@pytest.fixture
def running(stack: StoreSettings, tmp_path: Path) -> Iterator[Service]:
    with forked_service(stack, tmp_path) as found:
        yield found


def _count(running: Service, status: JobStatus) -> int:
    with running.database.read() as session:
        count = select(func.count()).select_from(Job).where(Job.status == status)
        return session.scalars(count).one()


def test_each_of_many_small_jobs_is_done_once_by_four_workers(running: Service) -> None:
    done = running.folder / "done"
    command = ["sh", "-c", FAST_TRAINER, str(done)]
    running.extra_env["SHORTFT_TRAINER_COMMAND"] = json.dumps(command)
    created = [running.create(updates=1) for _ in range(JOBS)]
    for _ in range(4):
        running.start_worker()
    running.until(lambda: _count(running, JobStatus.SUCCEEDED) == JOBS, 90.0)
    ran = Counter(json.loads(line)["job_id"] for line in done.read_text().splitlines())
    assert ran == Counter(created)
    for job_id in created:
        assert running.job(job_id).attempt == 1
        invariants.check(running, job_id)


@pytest.mark.parametrize("stack", ["postgresql"], indirect=True)
def test_of_two_workers_one_is_killed(running: Service) -> None:
    created = [running.create(updates=15, step_seconds=0.1) for _ in range(4)]
    victim, _ = running.start_worker(), running.start_worker()
    running.until(lambda: len({line.pid for line in running.lines()}) >= 2)
    victim.kill()
    for job_id in created:
        job = running.until_status(job_id)
        assert (job.status, job.crashes) == (JobStatus.SUCCEEDED, 0)
        invariants.check(running, job_id, updates=15)
    assert sum(running.job(job_id).attempt for job_id in created) in {4, 5}
    with running.database.read() as session:
        assert len(session.scalars(select(Worker.id)).all()) == 2
    assert not invariants.alive(invariants.trainers(running))
