"""Engines and transactions: the same promises on SQLite and PostgreSQL.

A reading transaction cannot write. A writing one on SQLite takes the lock when it begins, because a
lock that is taken later fails at once however long the timeout is.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from shortft_core.errors import UserError
from store.errors import BusyError, LostCommitError, StoreError
from store.mounts import network_filesystem

_T = TypeVar("_T")
_LOG: Final = logging.getLogger(__name__)
_BUSY_TIMEOUT_SECONDS: Final = 10.0
_SQLITE_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
_POSTGRESQL_OPTIONS: Final = (
    "-c timezone=UTC -c statement_timeout=10s -c idle_in_transaction_session_timeout=15s"
)
# serialization_failure, deadlock_detected, lock_not_available: PostgreSQL has undone everything.
_POSTGRESQL_BUSY: Final = frozenset({"40001", "40P01", "55P03"})
_ATTEMPTS: Final = 6
_FIRST_WAIT_SECONDS: Final = 0.02
_READ_ONLY: Final = "shortft_read_only"


@dataclass(frozen=True, slots=True)
class Database:
    """The way to a database: transactions that read, and transactions that write."""

    engine: Engine
    reader: Engine
    """The same connections, for transactions that read."""

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state and cannot change it; its rows outlive it."""
        with (
            Session(self.reader, autoflush=False, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed when the block ends, and undone when it raises."""
        with (
            Session(self.engine, autoflush=False, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session
            # A commit would write it without the conditions that every statement here has.
            if session.dirty:
                raise StoreError(f"assigned to instead of updated: {list(session.dirty)}")

    def transact(self, work: Callable[[Session], _T]) -> _T:
        """The result of `work` in a writing transaction, repeated while others are in its way.

        Only what the database has surely undone is repeated, a lost connection included, so `work`
        needs no care; it must not do anything outside the session. Raises BusyError when it does
        not get through, and LostCommitError when the connection broke during the commit itself.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            if attempt > 1:
                time.sleep(_FIRST_WAIT_SECONDS * 2 ** (attempt - 2) * random.uniform(0.5, 1.5))
            is_done = False
            try:
                with self.write() as session:
                    result = work(session)
                    is_done = True
            except DBAPIError as error:
                if error.connection_invalidated and is_done:
                    raise LostCommitError("the connection broke during a commit") from error
                if not (error.connection_invalidated or _is_busy(error)):
                    raise
                _LOG.warning("transaction %d of %d was undone: %s", attempt, _ATTEMPTS, error.orig)
            else:
                return result
        raise BusyError(f"a transaction was refused {_ATTEMPTS} times")

    def close(self) -> None:
        """Closes every connection of this process."""
        self.engine.dispose()


def open_database(url: str | URL) -> Database:
    """The database at `sqlite:///file` or `postgresql+psycopg://…`; connects at first use.

    Raises UserError for any other address.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UserError("database_url", "it is no address", _REMEDY) from error
    if parsed.drivername == "sqlite":
        return _sqlite(parsed)
    if parsed.drivername == "postgresql+psycopg":
        return _postgresql(parsed)
    raise UserError("database_url", f"{parsed.drivername} is not supported", _REMEDY)


_REMEDY: Final = "Give sqlite:////path/to/file or postgresql+psycopg://user@host/name"


def _sqlite(url: URL) -> Database:
    if url.database in {None, "", ":memory:"}:
        raise UserError(
            "database_url", "a database in memory belongs to one connection", "Name a file"
        )
    folder = Path(str(url.database)).parent
    folder.mkdir(parents=True, exist_ok=True)
    if (kind := network_filesystem(folder)) is not None:
        problem = f"{folder} is on {kind}, where SQLite's locks do not hold"
        raise UserError("database_url", problem, "Use a local disk, or PostgreSQL")
    engine = create_engine(
        url, json_serializer=_dump_json, connect_args={"timeout": _BUSY_TIMEOUT_SECONDS}
    )
    event.listen(engine, "first_connect", _shorten_log)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine, engine.execution_options(**{_READ_ONLY: True}))


def _shorten_log(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Writes the log that an earlier process left into the file; skipped while others use it."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if not _is_locked(error):
            raise
        _LOG.debug("the log is left as it is: %s", error)
    cursor.execute(f"PRAGMA busy_timeout={int(_BUSY_TIMEOUT_SECONDS * 1000)}")
    cursor.close()


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions by itself: it would begin them deferred.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
    connection.exec_driver_sql("BEGIN DEFERRED" if read_only else "BEGIN IMMEDIATE")


def _postgresql(url: URL) -> Database:
    engine = create_engine(
        url,
        json_serializer=_dump_json,
        pool_pre_ping=True,
        connect_args={"options": _POSTGRESQL_OPTIONS, "connect_timeout": 5},
    )
    # One snapshot for all statements of a reader; a transaction that only reads never conflicts.
    reader = engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
    return Database(engine, reader)


def _dump_json(value: object) -> str:
    """Compact ASCII; a number that is not finite is refused, since PostgreSQL does not take it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _is_busy(error: DBAPIError) -> bool:
    """Whether the database refused because of others, and has undone the whole transaction."""
    cause: Any = error.orig
    if isinstance(cause, sqlite3.OperationalError):
        return _is_locked(cause)
    return getattr(cause, "sqlstate", None) in _POSTGRESQL_BUSY


def _is_locked(error: sqlite3.OperationalError) -> bool:
    # The extended codes, such as SQLITE_BUSY_SNAPSHOT, have the basic one in their low byte.
    return error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
