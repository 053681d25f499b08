"""Lists page by page: a cursor is the id of a row, because ids sort by the time of creation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from shortft_core.errors import UserError

_Row = TypeVar("_Row")
MOST_ROWS: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class PageRequest:
    """Which part of a list; raises UserError for a page that cannot be."""

    limit: int = 20
    order: Literal["desc", "asc"] = "desc"
    """`desc`: the newest first."""
    after: str | None = None
    """Id of the row before the page's first one; the row itself may be gone."""
    before: str | None = None
    """Id of the row behind the page's last one."""

    def __post_init__(self) -> None:
        # SQLite takes a negative limit for none at all.
        if not 1 <= self.limit <= MOST_ROWS:
            raise UserError("limit", f"{self.limit} is outside 1 to {MOST_ROWS}", "Ask for less")
        if self.after is not None and self.before is not None:
            raise UserError("before", "it cannot stand beside after", "Give one of them")


@dataclass(frozen=True, slots=True)
class Page(Generic[_Row]):
    """Rows in the asked order."""

    rows: tuple[_Row, ...]
    has_more: bool
    """Whether the list goes on in the direction in which it was read."""


def fetch_page(
    session: Session,
    statement: Select[_Row],
    row_id: InstrumentedAttribute[Any],
    request: PageRequest,
) -> Page[_Row]:
    """The page of `statement`, which must not be ordered; stable while rows are added."""
    backwards = request.before is not None
    falling = (request.order == "desc") != backwards
    cursor = request.before if backwards else request.after
    if cursor is not None:
        statement = statement.where(row_id < cursor if falling else row_id > cursor)
    ordered = statement.order_by(row_id.desc() if falling else row_id.asc())
    rows = session.scalars(ordered.limit(request.limit + 1)).all()
    page = tuple(rows[: request.limit])
    return Page(page[::-1] if backwards else page, len(rows) > request.limit)
