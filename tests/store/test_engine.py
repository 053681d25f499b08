from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import Session

from shortft_core.errors import UserError
from store import engine as engine_module
from store import jobs
from store.engine import Database, open_database
from store.errors import BusyError, StoreError
from store.models import Job
from tests.store.conftest import at_once

if TYPE_CHECKING:
    from tests.store.conftest import Bench


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_sqlite_is_set_up_for_several_processes(database: Database) -> None:
    with database.read() as session:
        values = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_postgresql_gives_up_what_hangs(database: Database) -> None:
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "TimeZone")
    with database.read() as session:
        values = [session.execute(text(f"SHOW {name}")).scalar_one() for name in names]
    assert values == ["10s", "15s", "UTC"]


def test_a_reader_cannot_write(bench: Bench) -> None:
    job = bench.create()
    with (
        pytest.raises(DBAPIError, match=r"(?i)read-?only"),
        bench.database.read() as session,
    ):
        session.execute(text("UPDATE jobs SET priority = 1"))
    assert bench.get(job.id).priority == 0
    # The connection that read goes back to the pool and can write.
    bench.set(Job, job.id, priority=2)
    assert bench.get(job.id).priority == 2


def test_a_reader_sees_one_state(bench: Bench) -> None:
    job = bench.create()
    with bench.database.read() as session:
        before = session.execute(text("SELECT priority FROM jobs")).scalar_one()
        bench.set(Job, job.id, priority=7)
        assert session.execute(text("SELECT priority FROM jobs")).scalar_one() == before == 0


def test_a_block_that_raises_changes_nothing(bench: Bench) -> None:
    job = bench.create()

    def half_way(session: Session) -> None:
        session.execute(text("UPDATE jobs SET priority = 3"))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        bench.database.transact(half_way)
    assert bench.get(job.id).priority == 0


def test_a_row_that_was_assigned_to_is_not_written(bench: Bench) -> None:
    job_id = bench.create().id

    def assign(session: Session) -> None:
        jobs.get(session, job_id).priority = 9

    with pytest.raises(StoreError, match="assigned to instead of updated"):
        bench.database.transact(assign)
    assert bench.get(job_id).priority == 0


def test_writers_that_read_first_lose_no_update(bench: Bench, url: URL) -> None:
    job = bench.create()

    def add(session: Session) -> None:
        read = session.scalars(select(Job.priority).with_for_update()).one()
        session.execute(text("UPDATE jobs SET priority = :new"), {"new": read + 1})

    def work(database: Database) -> None:
        for _ in range(10):
            database.transact(add)

    at_once(url, work, times=4)
    assert bench.get(job.id).priority == 40


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_transaction_that_met_others_is_repeated(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL refuses one of two transactions that wait for each other."""
    one, two = bench.create().id, bench.create().id
    meeting = threading.Barrier(2)
    calls: list[str] = []

    def work(first: str, second: str) -> None:
        def steps(session: Session) -> None:
            statement = text("UPDATE jobs SET priority = priority + 1 WHERE id = :id")
            session.execute(statement, {"id": first})
            calls.append(first)
            if len(calls) <= 2:
                meeting.wait(timeout=10)
            session.execute(statement, {"id": second})

        bench.database.transact(steps)

    threads = [threading.Thread(target=work, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bench.get(job_id).priority for job_id in (one, two)] == [2, 2]
    assert len(calls) == 3
    assert "deadlock" in caplog.text


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_lock_that_is_never_freed_is_reported(
    bench: Bench, url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_module, "_BUSY_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(engine_module, "_ATTEMPTS", 3)
    impatient = open_database(url)
    with bench.database.write() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(BusyError, match="refused 3 times"):
            impatient.transact(lambda session: session.execute(text("SELECT 1")))
    assert caplog.text.count("database is locked") == 3
    impatient.close()


def test_a_fault_is_not_repeated(database: Database) -> None:
    calls = []

    def wrong(session: Session) -> None:
        calls.append(time.monotonic())
        session.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(DBAPIError, match="no_such_table"):
        database.transact(wrong)
    assert len(calls) == 1


def test_numbers_that_are_not_finite_are_refused(bench: Bench) -> None:
    with pytest.raises((StatementError, ValueError), match="not JSON compliant"):
        bench.set(Job, bench.create().id, latest_metrics={"loss": float("nan")})


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://localhost/x", "mysql is not supported"),
        ("postgresql://localhost/x", "postgresql is not supported"),
        ("nonsense", "no address"),
    ],
)
def test_other_addresses_are_refused(address: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as raised:
        open_database(address)
    assert raised.value.field == "database_url"


def test_the_folder_of_a_new_file_is_made(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/new/folder/shortft.db")
    with database.write() as session:
        session.execute(text("CREATE TABLE a (id int)"))
    database.close()
    assert (tmp_path / "new/folder/shortft.db").is_file()


def test_a_file_that_another_process_sets_up_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    # As several processes do that are started at once on a file that is not there yet.
    first = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    first.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, first.execute, ["COMMIT"])
    release.start()
    database = open_database(f"sqlite:///{file}")
    with database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    release.join()
    first.close()
    database.close()
