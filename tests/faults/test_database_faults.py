"""PostgreSQL that drops connections, crashes, stays away, or is not there when things start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, event

from migrations.run import upgrade
from store.engine import open_database
from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import Service, forked_service
from tests.faults.http import Api, served
from tests.faults.postgres import PostgresServer, restartable_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests alone, because they stop it."""
    # Not pytest's folder: another user could not reach into it.
    with (
        TemporaryDirectory(prefix="shortft-postgresql-") as name,
        restartable_server(Path(name)) as found,
    ):
        database = open_database(found.url)
        upgrade(database.engine)
        database.close()
        yield found
        if not found.answers():
            found.start()


@contextmanager
def running_on(server: PostgresServer, folder: Path, **times: float) -> Iterator[Service]:
    """A service whose rows are in PostgreSQL and whose messages are files."""
    (folder / "data").mkdir()
    address = SecretStr(server.url.render_as_string(hide_password=False))
    settings = StoreSettings(
        data_dir=folder / "data", secret_key=SecretStr("0" * 64), database_url=address
    )
    with forked_service(settings, folder, **times) as running:
        yield running


def _starts(running: Service, job_id: str) -> int:
    lines = [line for line in running.lines() if line.job_id == job_id]
    return [line.what for line in lines].count("start")


def test_a_short_outage_restarts_no_training(server: PostgresServer, tmp_path: Path) -> None:
    # Its fence is at 24 s: no machine is so slow that a restart takes longer.
    with running_on(server, tmp_path, lease_seconds=30.0) as running:
        running.start_worker()
        job_id = running.create(updates=60, step_seconds=0.1)
        for update in (5, 15, 25):
            running.until_update(job_id, update)
            assert server.terminate_backends() > 0
        running.until_update(job_id, 30)
        server.stop()
        running.until_update(job_id, 40)
        server.start()
        job = running.until_status(job_id)
        invariants.check(running, job_id, updates=60)
        assert (job.status, job.attempt, _starts(running, job_id)) == (JobStatus.SUCCEEDED, 1, 1)
        reported = [e.data["update"] for e in running.events(job_id) if e.type == "job.metrics"]
        assert sorted(set(reported)) == list(range(1, 61))


def test_a_long_outage_stops_the_trainer_and_costs_no_checkpoint(
    server: PostgresServer, tmp_path: Path
) -> None:
    with running_on(server, tmp_path) as running:
        running.start_worker()
        job_id = running.create(updates=60, step_seconds=0.1)
        line = running.until_update(job_id, 12)
        running.until(lambda: running.job(job_id).resumable_update >= 10)
        server.stop()
        running.until(lambda: not invariants.alive({line.pid}))
        server.start()
        job = running.until_status(job_id)
        invariants.check(running, job_id, updates=60)
        assert (job.status, job.crashes) == (JobStatus.SUCCEEDED, 0)
        second = [line.update for line in running.lines() if line.what == "start"][1]
        assert second >= 10


def test_everything_waits_for_a_database_that_is_away(
    server: PostgresServer, tmp_path: Path
) -> None:
    with running_on(server, tmp_path) as running, served(running) as api, api.client() as client:
        server.stop()
        worker = running.start_worker()
        for path in ("/jobs", "/readyz"):
            assert client.get(path).status_code == 503
        refused = api.post(3, {}, "again")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/healthz").status_code == 200
        # It has been refused at least once, and lives.
        running.until(lambda: "no heartbeat" in worker.log.read_text())
        assert worker.process.poll() is None
        server.start()
        accepted = api.post(3, {}, "again")
        assert accepted.status_code == 202
        job_id = accepted.json()["id"]
        assert running.until_status(job_id).status is JobStatus.SUCCEEDED
        invariants.check(running, job_id, updates=3)
        # Its answer is kept for a few seconds.
        running.until(lambda: client.get("/readyz").status_code == 200)


def test_an_api_is_not_started_without_its_database(server: PostgresServer, tmp_path: Path) -> None:
    with running_on(server, tmp_path) as running:
        server.stop()
        process = Api(running).spawn()
        assert process.wait(60) not in {0, -9}
        server.start()
        with served(running) as api, api.client() as client:
            assert client.get("/readyz").status_code == 200


def test_a_commit_that_is_not_answered_is_repeated(server: PostgresServer, tmp_path: Path) -> None:
    with running_on(server, tmp_path, lease_seconds=30.0) as running:
        station = running.station()
        lost: set[str] = set()

        def break_commit(connection: Connection) -> None:
            # Once in each thread that writes for an attempt: its own, and that of the lease.
            name = threading.current_thread().name
            if connection.get_execution_options().get("postgresql_readonly") or name in lost:
                return
            if _starts(running, job_id) and running.lines()[-1].update >= 5:
                lost.add(name)
                server.terminate_backends()

        job_id = running.create(updates=40, step_seconds=0.05)
        event.listen(running.database.engine, "commit", break_commit)
        job = running.work_off(job_id, station)
        event.remove(running.database.engine, "commit", break_commit)
        assert lost == {"lease", threading.current_thread().name}
        invariants.check(running, job_id, updates=40)
        assert (job.status, job.attempt, _starts(running, job_id)) == (JobStatus.SUCCEEDED, 1, 1)
