"""What a transaction does when its connection breaks, and what a file is like after a crash."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.engine import Database, open_database
from store.errors import BusyError, LostCommitError
from store.models import Job

if TYPE_CHECKING:
    from tests.store.conftest import Bench

on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
CRASH = """
import os, sys
from sqlalchemy import text
from store.engine import open_database
database = open_database(sys.argv[1])
with database.write() as session:
    session.execute(text("CREATE TABLE a (id int)"))
os._exit(9)
"""


def _raise_priority(session: Session, job_id: str) -> int:
    statement = text("UPDATE jobs SET priority = priority + 1 WHERE id = :id RETURNING priority")
    return int(session.execute(statement, {"id": job_id}).scalar_one())


def _terminate(database: Database, session: Session) -> None:
    """Ends the server's process of this session, as a restart of the server does."""
    pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with database.write() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def _work_that_breaks(bench: Bench, url: URL, job_id: str, times: int) -> Callable[[Session], int]:
    """Adds 1, and loses its connection half way the first `times` times."""
    calls: list[int] = []

    def work(session: Session) -> int:
        raised = _raise_priority(session, job_id)
        calls.append(raised)
        if len(calls) <= times:
            other = open_database(url)
            _terminate(other, session)
            other.close()
        session.execute(text("SELECT 1"))
        return raised

    return work


@on_postgresql
def test_a_connection_that_breaks_half_way_is_tried_again(bench: Bench, url: URL) -> None:
    job = bench.create()
    work = _work_that_breaks(bench, url, job.id, times=2)
    assert bench.database.transact(work) == 1
    assert bench.get(job.id).priority == 1


@on_postgresql
def test_a_connection_that_breaks_every_time_is_reported(bench: Bench, url: URL) -> None:
    job = bench.create()
    with pytest.raises(BusyError, match="refused 6 times"):
        bench.database.transact(_work_that_breaks(bench, url, job.id, times=99))
    assert bench.get(job.id).priority == 0


@on_postgresql
def test_a_commit_without_an_answer_is_not_repeated(bench: Bench, url: URL) -> None:
    """Whether it was written cannot be known here, so nothing is done twice."""
    job = bench.create()
    calls: list[int] = []

    def work(session: Session) -> None:
        calls.append(_raise_priority(session, job.id))
        # The server ends the process between the last statement and the commit.
        event.listen(session, "before_commit", end)

    def end(session: Session) -> None:
        other = open_database(url)
        _terminate(other, session)
        other.close()

    with pytest.raises(LostCommitError, match="during a commit"):
        bench.database.transact(work)
    assert len(calls) == 1
    # The next transaction has a connection that works.
    assert bench.get(job.id).priority in {0, 1}


@on_postgresql
def test_a_server_that_is_away_is_reported_at_once(bench: Bench, url: URL) -> None:
    away = open_database(url.set(port=1))
    with pytest.raises(OperationalError):
        away.transact(lambda session: _raise_priority(session, "job_x"))
    away.close()


@on_sqlite
def test_the_log_of_a_process_that_died_is_written_at_the_next_start(
    tmp_path: Path, url: URL
) -> None:
    path = tmp_path / "new.db"
    address = f"sqlite:///{path}"
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", CRASH, address], cwd=root, check=False, timeout=60)
    assert died.returncode == 9
    log = path.with_name("new.db-wal")
    assert log.stat().st_size > 0
    database = open_database(address)
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM a")).scalar_one() == 0
        assert log.stat().st_size == 0
        assert session.execute(text("PRAGMA busy_timeout")).scalar_one() == 10_000
    database.close()


@on_sqlite
def test_a_log_in_use_is_left_alone(bench: Bench, url: URL) -> None:
    """Another process reads: opening the file neither waits for it nor fails."""
    reader = sqlite3.connect(str(url.database), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchone()
    job = bench.create()
    second = open_database(url)
    with second.read() as session:
        assert session.get(Job, job.id) is not None
    second.close()
    reader.execute("ROLLBACK")
    reader.close()
