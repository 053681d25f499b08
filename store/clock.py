"""One clock for all writers of a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Float, extract, func, select, type_coerce
from sqlalchemy.orm import Session

_SECONDS_PER_DAY: Final = 86_400.0


def database_now(session: Session) -> datetime:
    """The server's clock on PostgreSQL, where hosts may disagree; this host's on SQLite.

    Not `now()`, which stands still within a transaction.
    """
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(tz=UTC)
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now.astimezone(UTC)


def seconds_between(
    session: Session, begin: ColumnElement[Any], end: ColumnElement[Any]
) -> ColumnElement[float]:
    """Of each row; null where a time is, and to about 0.1 ms on SQLite."""
    if session.get_bind().dialect.name == "sqlite":
        return (func.julianday(end) - func.julianday(begin)) * _SECONDS_PER_DAY
    return type_coerce(extract("epoch", end - begin), Float())
