"""Every test of the store runs on SQLite and on a PostgreSQL server of its own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy
from sqlalchemy import URL, make_url

from shortft_core import catalog
from shortft_core.spec import AlignSpec
from store import events, jobs, leases
from store.engine import Database, open_database
from store.leases import Claim
from store.models import Base, Generation, Job
from tests.servers.postgresql import TEMPLATE, administrate

SPEC: Final = catalog.resolve(
    AlignSpec.model_validate(
        {
            "base_model": {"name": "shapes"},
            "method": {"type": "draft_k", "updates": 3},
            "rewards": [{"name": "symmetry"}],
            "prompts": {"name": "shapes-train"},
            "name": "mirror",
            "metadata": {"team": "a"},
        }
    )
)
_numbers: Final = count()
_SHARED: Final = "shared"


@pytest.fixture(scope="session")
def shared_database(postgresql_server: URL) -> URL:
    """The address of a migrated database that every test leaves without rows."""
    administrate(postgresql_server, f"CREATE DATABASE {_SHARED} TEMPLATE {TEMPLATE}")
    return postgresql_server.set(database=_SHARED)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """The address of a migrated database without rows, once on each kind."""
    if request.param == "sqlite":
        path = tmp_path / "shortft.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield make_url(f"sqlite:///{path}")
        return
    shared: URL = request.getfixturevalue("shared_database")
    yield shared
    # A new database for each test would take most of the time of all tests.
    tables = reversed(Base.metadata.sorted_tables)
    administrate(shared, *(str(sqlalchemy.delete(table)) for table in tables))


@pytest.fixture
def database(url: URL) -> Iterator[Database]:
    """A way to the migrated database."""
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A way to a database without tables, once on each kind."""
    if request.param == "sqlite":
        url = make_url(f"sqlite:///{tmp_path}/empty.db")
    else:
        server: URL = request.getfixturevalue("postgresql_server")
        url = server.set(database=f"empty_{next(_numbers)}")
        administrate(server, f"CREATE DATABASE {url.database}")
    opened = open_database(url)
    yield opened
    opened.close()


def at_once(url: URL, work: Callable[[Database], object], *, times: int = 6) -> None:
    """Does the work in so many threads together, each with connections of its own."""
    together = threading.Barrier(times)

    def run() -> None:
        database = open_database(url)
        together.wait(timeout=20)
        work(database)
        database.close()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass(frozen=True)
class Bench:
    """A database, and the steps that most tests begin with."""

    database: Database
    spec: AlignSpec = SPEC

    def create(self, **fields: Any) -> Job:
        """A queued job."""
        new = jobs.NewJob(**{"spec": self.spec, **fields})
        return self.database.transact(lambda session: jobs.create(session, new))

    def claim(self, worker_id: str = "wrk_a") -> Claim:
        """The next job, which has to be there."""
        claimed = self.database.transact(
            lambda session: leases.claim(session, worker_id, ["default"])
        )
        assert claimed is not None
        return claimed

    def get(self, job_id: str) -> Job:
        """The job as it is now."""
        with self.database.read() as session:
            return jobs.get(session, job_id)

    def set(self, table: type[Job | Generation], row_id: str, **values: Any) -> None:
        """Turns the clock, or any other column, behind the repositories' back."""
        with self.database.write() as session:
            session.execute(sqlalchemy.update(table).where(table.id == row_id).values(**values))

    def expire(self, table: type[Job | Generation], row_id: str) -> None:
        """Lets a lease end, and whatever waits begin."""
        past = datetime.now(tz=UTC) - timedelta(hours=1)
        with self.database.write() as session:
            session.execute(
                sqlalchemy.update(table)
                .where(table.id == row_id, table.lease_expires_at.is_not(None))
                .values(lease_expires_at=past)
            )

    def types(self, job_id: str) -> list[str]:
        """The job's history by types, checked for gaps."""
        with self.database.read() as session:
            rows = events.after(session, job_id)
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        return [row.type for row in rows]


@pytest.fixture
def bench(database: Database) -> Bench:
    """The database with its helpers."""
    return Bench(database)
