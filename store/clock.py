"""One clock for all writers of a database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def database_now(session: Session) -> datetime:
    """The server's clock on PostgreSQL, where hosts may disagree; this host's on SQLite.

    Not `now()`, which stands still within a transaction.
    """
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(tz=UTC)
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now.astimezone(UTC)
