"""A broker that is killed, emptied, frozen or full delays work by a sweep, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import Service, forked_service
from tests.faults.http import served
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.parametrize("stack", ["postgresql"], indirect=True)
FAILURES: Final = "shortft_doorbell_failures_total"
IS_DURABLE: Final = pytest.mark.parametrize("redis_server", [False, True], indirect=True)


@pytest.fixture
def running(stack: StoreSettings, tmp_path: Path) -> Iterator[Service]:
    with forked_service(stack, tmp_path) as found:
        yield found


def _fill(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1")


def _make_room(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "0")


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        (RedisServer.kill, RedisServer.start),
        (RedisServer.freeze, RedisServer.thaw),
        (_fill, _make_room),
    ],
    ids=["killed", "frozen", "full"],
)
def test_requests_and_jobs_go_on_without_a_broker(
    running: Service,
    redis_server: RedisServer,
    fault: Callable[[RedisServer], None],
    end: Callable[[RedisServer], None],
) -> None:
    running.start_worker(slots=2)
    with served(running) as api:
        first = api.create(60, step_seconds=0.1)
        running.until_update(first, 3)
        fault(redis_server)
        second = api.create(3)
        running.until(lambda: api.figure(FAILURES) >= 1.0)
        assert running.until_status(second).status is JobStatus.SUCCEEDED
        with api.client() as client:
            assert client.get(f"/jobs/{first}").json()["status"] == "running"
            ready = client.get("/readyz")
        end(redis_server)
        third = api.create(3)
        for job_id, updates in ((first, 60), (second, 3), (third, 3)):
            job = running.until_status(job_id)
            assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
            invariants.check(running, job_id, updates=updates)
    # A full Redis answers.
    expected = "ok" if fault is _fill else "degraded"
    assert (ready.status_code, ready.json()["status"]) == (200, expected)


@IS_DURABLE
def test_jobs_whose_wake_ups_are_lost_start_all_the_same(
    running: Service, redis_server: RedisServer
) -> None:
    queued = [running.create(updates=3) for _ in range(2)]
    running.until(lambda: running.doorbell.published >= 1)
    redis_server.kill()
    redis_server.start()
    with redis_server.client() as client:
        client.flushall()
    running.start_worker()
    for job_id in queued:
        assert running.until_status(job_id).attempt == 1
        invariants.check(running, job_id, updates=3)


def test_a_worker_that_is_started_without_a_broker_works_and_stops(
    running: Service, redis_server: RedisServer
) -> None:
    redis_server.kill()
    worker = running.start_worker()
    with served(running) as api:
        job_id = api.create(3)
        assert running.until_status(job_id).status is JobStatus.SUCCEEDED
        invariants.check(running, job_id, updates=3)
    worker.terminate()
    assert worker.wait() == 0
