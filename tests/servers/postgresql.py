"""A PostgreSQL server of the session, and migrated databases on it for single tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from migrations.run import upgrade
from store.engine import open_database
from tests.servers.processes import ends_with_parent, free_port, wait_until

TEMPLATE: Final = "migrated"
"""Name of the database that others are copied from; nobody connects to it."""
_numbers: Final = count()
_FAST: Final = (
    "-cfsync=off",
    "-csynchronous_commit=off",
    "-cfull_page_writes=off",
    "-cshared_buffers=32MB",
)


def administrate(server: URL, *statements: str) -> None:
    """Runs statements outside of transactions."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    """The address of a server; skips where PostgreSQL is not installed."""
    # Not pytest's folder: another user could not reach into it.
    with (
        tempfile.TemporaryDirectory(prefix="shortft-postgresql-") as folder,
        running_server(Path(folder)) as url,
    ):
        administrate(url, f"CREATE DATABASE {TEMPLATE}")
        template = open_database(url.set(database=TEMPLATE))
        upgrade(template.engine)
        template.close()
        yield url


@contextmanager
def copied_database(server: URL) -> Iterator[URL]:
    """The address of a migrated database without rows, which is dropped afterwards."""
    name = f"copy_{next(_numbers)}"
    administrate(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    try:
        yield server.set(database=name)
    finally:
        administrate(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgresql_url(postgresql_server: URL) -> Iterator[URL]:
    """The address of a migrated database of this test alone."""
    with copied_database(postgresql_server) as url:
        yield url


@contextmanager
def running_server(folder: Path, *, is_durable: bool = False) -> Iterator[URL]:
    """The address of a server that answers; one that is not durable may lose all in a power cut."""
    initdb, postgres = _binary("initdb"), _binary("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed")
    user = _other_user(folder)
    data, port = folder / "data", free_port()
    create = ["--auth=trust", "--username=shortft", "--encoding=UTF8", "--locale=C", "--no-sync"]
    create += ["--wal-segsize=1", "--no-instructions"]
    subprocess.run(
        [*user, initdb, "-D", data, *create], check=True, capture_output=True, timeout=100
    )
    options = [f"-cunix_socket_directories={folder}", *([] if is_durable else _FAST)]
    command = [*user, *ends_with_parent("QUIT"), postgres, "-D", data, "-h127.0.0.1", f"-p{port}"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        try:
            url = URL.create("postgresql+psycopg", "shortft", None, "127.0.0.1", port, "postgres")
            wait_until(lambda: _answers(url))
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            process.wait(timeout=30)


def _binary(name: str) -> Path | None:
    """A program of PostgreSQL, from the search path or from where Debian puts it."""
    found = shutil.which(name)
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return Path(found) if found else debian[-1] if debian else None


def _other_user(folder: Path) -> list[str | Path]:
    """PostgreSQL refuses to run as root: there, another user gets the folder."""
    if os.geteuid() != 0:
        return []
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users.get("nobody")
    if user is None or shutil.which("setpriv") is None:
        pytest.skip("running as root, and PostgreSQL needs another user")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _answers(url: URL) -> bool:
    try:
        administrate(url, "SELECT 1")
    except OperationalError:
        return False
    return True
