"""A PostgreSQL server that a test stops at once, starts again, and takes connections from."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from tests.servers.postgresql import administrate, running_server
from tests.servers.processes import ends_with_parent, wait_until


class PostgresServer:
    """A server whose data lie in `folder`; `url` is an address on it."""

    def __init__(self, folder: Path, url: URL) -> None:
        self.url = url
        self._data = folder / "data"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def terminate_backends(self) -> int:
        """Ends every connection of others to the database; returns how many there were."""
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        statement = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with engine.connect() as connection:
            return int(connection.execute(statement).scalar_one())

    def stop(self) -> None:
        """Ends it at once, as a crash would: it recovers from its log at the next start."""
        pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
        if self._process is not None:
            self._process.wait(timeout=30)
        wait_until(lambda: not (self._data / "postmaster.pid").exists())

    def start(self) -> None:
        """Returns when it answers again, at the same address."""
        owner = self._data.stat()
        user: list[str | Path] = []
        if os.geteuid() == 0:
            user = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}"]
            user.append("--clear-groups")
        # What the server itself noted of how it was started.
        words = shlex.split((self._data / "postmaster.opts").read_text())
        with self._log.open("ab") as log:
            command = [*user, *ends_with_parent("QUIT"), *words]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.answers)

    def close(self) -> None:
        """Ends it, if it was started again."""
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            administrate(self.url, "SELECT 1")
        except OperationalError:
            return False
        return True


@contextmanager
def restartable_server(folder: Path) -> Iterator[PostgresServer]:
    """A server of its own, which keeps what it has committed; skips where there is none."""
    with running_server(folder, is_durable=True) as url:
        server = PostgresServer(folder, url)
        try:
            yield server
        finally:
            server.close()
