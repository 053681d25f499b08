"""An API that dies between the commit of a job and its wake-up, and one whose database is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest
from sqlalchemy import select

from store.models import Job
from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import Service, forked_service
from tests.faults.http import Api

DIES_BEFORE_IT_RINGS: Final = """
import os, runpy, signal, sys
from store.broker import Queue
from store.doorbell import Doorbell

def ring(self, queue):
    if queue is Queue.TRAIN:
        os.kill(os.getpid(), signal.SIGKILL)

Doorbell.ring = ring
sys.argv = ["api"]
runpy.run_module("api", run_name="__main__", alter_sys=True)
"""
KEY: Final = "the-first-and-only"


@pytest.fixture
def running(stack: StoreSettings, tmp_path: Path) -> Iterator[Service]:
    with forked_service(stack, tmp_path) as found:
        yield found


@pytest.fixture
def api(running: Service) -> Iterator[Api]:
    found = Api(running)
    yield found
    found.kill()


def _job_ids(running: Service) -> list[str]:
    with running.database.read() as session:
        return list(session.scalars(select(Job.id)).all())


def test_a_job_whose_api_died_before_it_rang_runs_once(running: Service, api: Api) -> None:
    program = running.folder / "dies_before_it_rings.py"
    program.write_text(DIES_BEFORE_IT_RINGS)
    api.start([str(program)])
    with pytest.raises(httpx2.TransportError):
        api.post(5, {}, KEY)
    assert api.process is not None
    assert api.process.wait(30) == -9
    [job_id] = _job_ids(running)
    assert running.job(job_id).status is JobStatus.QUEUED
    # Nobody rang, and there is no API: the worker's own sweep finds it.
    running.start_worker()
    job = running.until_status(job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    invariants.check(running, job_id, updates=5)
    api.start()
    again = api.post(5, {}, KEY)
    assert (again.status_code, again.json()["id"]) == (200, job_id)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert _job_ids(running) == [job_id]
    assert [line.what for line in running.lines()].count("start") == 1
