"""What figures go on counting of jobs and generations that were deleted: no counter may fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Subquery, insert, literal, select, union_all
from sqlalchemy.orm import Session

from store.models import Generation, Job, Tombstone

_KINDS: Final[dict[type[Job | Generation], str]] = {Job: "job", Generation: "generation"}
_COUNTED: Final = ("status", "error_code", "created_at", "started_at", "finished_at")


def leave(session: Session, table: type[Job | Generation], ids: Sequence[str]) -> None:
    """Keeps what is counted of finished rows; call it in the transaction that deletes them."""
    counted = (getattr(table, name) for name in ("id", *_COUNTED))
    rows = select(literal(_KINDS[table]), *counted).where(table.id.in_(ids))
    session.execute(insert(Tombstone).from_select(["kind", "id", *_COUNTED], rows))


def ever_finished(table: type[Job | Generation]) -> Subquery:
    """Status, error code and times of all rows that ever finished, deleted ones included."""
    kept, gone = (select(*(getattr(of, name) for name in _COUNTED)) for of in (table, Tombstone))
    return union_all(
        kept.where(table.finished_at.is_not(None)), gone.where(Tombstone.kind == _KINDS[table])
    ).subquery()
