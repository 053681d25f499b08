"""A container is healthy while a worker of its kind on its host beats."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from sqlalchemy import update

from store import workers
from store.engine import open_database
from store.models import Worker
from store.settings import StoreSettings
from store.workers import NewWorker
from worker.health import living


def _new(host: str) -> NewWorker:
    return NewWorker(kind="train", host=host, pid=1, slots=1, device="cpu", version="0")


def _check(settings: StoreSettings, kind: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker.health", kind],
        env={"PATH": os.defpath, "SHORTFT_DATABASE_URL": settings.database_address()},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def test_only_this_kind_on_this_host_counts(stack: StoreSettings) -> None:
    database = open_database(stack.database_address())
    mine = database.transact(lambda session: workers.register(session, _new("here")))
    database.transact(lambda session: workers.register(session, _new("there")))
    assert [worker.id for worker in living(database, "train", "here")] == [mine.id]
    assert living(database, "generate", "here") == ()
    database.close()


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_silence_makes_the_command_fail(stack: StoreSettings) -> None:
    database = open_database(stack.database_address())
    row = database.transact(lambda session: workers.register(session, _new(socket.gethostname())))
    assert _check(stack, "train").returncode == 0
    assert living(database, "default", socket.gethostname()) == ()
    long_ago = row.heartbeat_at - timedelta(seconds=workers.ALIVE_SECONDS + 1)
    database.transact(lambda session: session.execute(update(Worker).values(heartbeat_at=long_ago)))
    silent = _check(stack, "train")
    assert silent.returncode == 1
    assert "no train worker" in silent.stderr.lower()
    database.close()


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_stopped_worker_is_not_healthy(stack: StoreSettings) -> None:
    database = open_database(stack.database_address())
    row = database.transact(lambda session: workers.register(session, _new("here")))
    database.transact(lambda session: workers.beat(session, row.id, "stopped"))
    assert living(database, "train", "here") == ()
    database.close()
