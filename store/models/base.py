"""What every table shares: names of constraints, types of columns, and what a lease is made of."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.models.columns import CleanText, UtcDateTime

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names that a migration can rely on, on every database."""


class Base(DeclarativeBase):
    """Rows are read as objects and changed by the repositories' UPDATE statements alone."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime, str: CleanText}


class Leased:
    """Columns of work that one worker at a time holds, for a while that it has to renew."""

    priority: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Higher is claimed first; equal ones in the order of their ids."""
    run_after: Mapped[datetime]
    """When a queued row may be claimed; later than now while it backs off."""
    woken_at: Mapped[datetime | None]
    """When workers were last told of it."""
    lease_owner: Mapped[str | None] = mapped_column(String(40))
    """The worker that holds it."""
    lease_token: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Fencing token: grows at each claim and each expiry; a writer names the one it was given."""
    lease_expires_at: Mapped[datetime | None]
    """When others may take it; set exactly while it is held."""
    heartbeat_at: Mapped[datetime | None]
    """When the holder was last heard of."""
    attempt: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Claims so far, without those that ended by a pause or an orderly stop."""
    crashes: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Times in a row that its process died under a living worker: a poison job."""
    lost_leases: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Times in a row that the worker itself was lost: bad luck."""
    error_code: Mapped[str | None] = mapped_column(String(64))
    """Why it failed, as a name of the HTTP interface."""
    error_message: Mapped[str | None]
    """The same for people."""
    exit_cause: Mapped[str | None]
    """How the last attempt ended."""
    log_tail: Mapped[str | None]
    """Last lines that the last attempt wrote."""
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    """First claim."""
    finished_at: Mapped[datetime | None]
    """Set exactly when the status is terminal."""
    updated_at: Mapped[datetime]
