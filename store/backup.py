"""A copy of an SQLite database that is in use; PostgreSQL brings its own tools."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from shortft_core.errors import UserError
from store.engine import Database


def backup(database: Database, path: Path) -> None:
    """Writes everything that is committed now to a new file, which appears when it is whole.

    Raises UserError for a file that exists, and for PostgreSQL.
    """
    if database.engine.dialect.name != "sqlite":
        raise UserError("database_url", "it is PostgreSQL", "Use pg_dump")
    if path.exists():
        raise UserError("path", f"{path} exists", "Name a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid4().hex}")
    connection = database.engine.raw_connection()
    try:
        # The driver's own connection: VACUUM is refused within a transaction.
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only=OFF")
        cursor.execute("VACUUM INTO ?", (str(partial),))
        cursor.close()
        partial.replace(path)
    finally:
        connection.close()
        partial.unlink(missing_ok=True)
