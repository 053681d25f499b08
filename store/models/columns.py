"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Enum,
    String,
    Text,
    bindparam,
)
from sqlalchemy.orm import InstrumentedAttribute, mapped_column
from sqlalchemy.types import TypeDecorator

Status = TypeVar("Status", bound=StrEnum)
# PostgreSQL stores no NUL, and UTF-8 has no form for half a surrogate pair; log lines hold both.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, always UTC when read; a naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """SQLite drops the zone, so it is UTC before."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """PostgreSQL answers in the session's zone, SQLite without one."""
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value and value.astimezone(UTC)


class CleanText(TypeDecorator[str]):
    """Text of any origin: what a database cannot hold becomes U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Replaces NUL and lone surrogates."""
        return value and _UNSTORABLE.sub("\ufffd", value)


def status_type(statuses: type[StrEnum]) -> Enum:
    """A column of these values: text with a CHECK, since altering PostgreSQL's enums is awkward."""
    return Enum(
        statuses,
        name="status",
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def equals_inline(column: InstrumentedAttribute[Status], status: Status) -> ColumnElement[bool]:
    """`column = 'status'` with the value in the statement's text.

    No planner matches a partial index with a parameter, since its value may change.
    """
    value = bindparam(None, status, type_=column.type, literal_execute=True)
    return column == value


# Compared byte by byte: ids sort by time, whatever the database's language is.
ID_TYPE: Final = String(40).with_variant(String(40, collation="C"), "postgresql")
RowId = Annotated[str, mapped_column(ID_TYPE)]
Bytes = Annotated[int, mapped_column(BigInteger)]
Seed = Annotated[int, mapped_column(BigInteger)]
Json = Annotated[dict[str, Any], mapped_column(JSON(none_as_null=True))]
Strings = Annotated[list[str], mapped_column(JSON(none_as_null=True))]
