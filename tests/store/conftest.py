"""Every test of the store runs on SQLite and on a PostgreSQL server of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from migrations.run import upgrade
from shortft_core import catalog
from shortft_core.spec import AlignSpec
from store import events, jobs, leases
from store.engine import Database, open_database
from store.leases import Claim
from store.models import Base, Generation, Job

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
# A test server may lose everything in a power cut.
_FAST: Final = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
)


def _binary(name: str) -> Path | None:
    """A program of PostgreSQL, from the search path or from where Debian puts it."""
    found = shutil.which(name)
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return Path(found) if found else debian[-1] if debian else None


def _as_other_user(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: there, another user gets the folder."""
    if os.geteuid() != 0:
        return []
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users.get("nobody")
    if user is None or shutil.which("setpriv") is None:
        pytest.skip("running as root, and PostgreSQL needs another user")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def _server(folder: Path) -> Iterator[URL]:
    initdb, postgres = _binary("initdb"), _binary("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed")
    prefix = _as_other_user(folder)
    data, port = folder / "data", _free_port()
    create = ["--auth=trust", "--username=shortft", "--encoding=UTF8", "--locale=C", "--no-sync"]
    create += ["--wal-segsize=1", "--no-instructions"]
    subprocess.run(
        [*prefix, initdb, "-D", data, *create], check=True, capture_output=True, timeout=100
    )
    options = [f"-c{option}" for option in (*_FAST, f"unix_socket_directories={folder}")]
    with (folder / "server.log").open("wb") as log:
        command: list[str | Path] = [
            *prefix,
            postgres,
            "-D",
            data,
            "-h127.0.0.1",
            f"-p{port}",
            *options,
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield URL.create("postgresql+psycopg", "shortft", None, "127.0.0.1", port, "postgres")
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            process.wait(timeout=30)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[URL]:
    """The address of a server with a migrated database called `shared`."""
    # Not pytest's folder: another user could not reach into it.
    with (
        tempfile.TemporaryDirectory(prefix="shortft-postgresql-") as folder,
        _server(Path(folder)) as url,
    ):
        _wait_until_ready(url)
        _administrate(url, f"CREATE DATABASE {_SHARED}")
        shared = open_database(url.set(database=_SHARED))
        upgrade(shared.engine)
        shared.close()
        yield url


def _wait_until_ready(url: URL, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _administrate(url, "SELECT 1")
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _administrate(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    database = open_database(f"sqlite:///{path}")
    upgrade(database.engine)
    database.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """The address of a migrated database without rows, once on each kind."""
    if request.param == "sqlite":
        path = tmp_path / "shortft.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield make_url(f"sqlite:///{path}")
        return
    server: URL = request.getfixturevalue("postgresql")
    yield server.set(database=_SHARED)
    # A new database for each test would take most of the time of all tests.
    tables = reversed(Base.metadata.sorted_tables)
    _administrate(
        server.set(database=_SHARED), *(str(sqlalchemy.delete(table)) for table in tables)
    )


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
        server: URL = request.getfixturevalue("postgresql")
        url = server.set(database=f"empty_{next(_numbers)}")
        _administrate(server, f"CREATE DATABASE {url.database}")
    opened = open_database(url)
    yield opened
    opened.close()


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
