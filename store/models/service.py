"""Tables of what surrounds jobs: prompt sets, keys, workers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base
from store.models.columns import Bytes, RowId, Strings


class PromptSetRow(Base):
    """Prompts that a user uploaded."""

    __tablename__ = "prompt_sets"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    """Hash of the prompts, as the core defines it."""
    count: Mapped[int]
    size_bytes: Mapped[Bytes]
    prompts: Mapped[Strings] = mapped_column(deferred=True, deferred_raiseload=True)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("project", "name"), Index(None, "project", "id"))


class IdempotencyKey(Base):
    """The first request that came with a key, so that its repetition changes nothing."""

    __tablename__ = "idempotency_keys"

    project: Mapped[str] = mapped_column(String(64), primary_key=True)
    operation: Mapped[str] = mapped_column(String(200), primary_key=True)
    """Method and path."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    resource_id: Mapped[RowId]
    """What the first request created."""
    response_status: Mapped[int | None]
    """None until it is answered."""
    response: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    __table_args__ = (Index(None, "expires_at"),)


class Tombstone(Base):
    """What is still counted of a finished job or generation that was deleted."""

    __tablename__ = "tombstones"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    """The id that it had."""
    kind: Mapped[str] = mapped_column(String(16))
    """`job` or `generation`."""
    status: Mapped[str] = mapped_column(String(16))
    error_code: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime]

    __table_args__ = (CheckConstraint("kind IN ('job', 'generation')", name="kind"),)


class ApiKey(Base):
    """A key that a client shows; the key itself is nowhere in the database."""

    __tablename__ = "api_keys"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """HMAC-SHA256 of the key under the server's secret."""
    last_characters: Mapped[str] = mapped_column(String(4))
    scopes: Mapped[Strings]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Within a minute."""

    __table_args__ = (Index(None, "project", "id"),)


class Worker(Base):
    """A worker process, as it last described itself."""

    __tablename__ = "workers"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    """`train`, `generate`, or `default` for chores."""
    host: Mapped[str]
    pid: Mapped[int]
    boot_id: Mapped[str | None]
    """Tells a restarted host from a living one."""
    slots: Mapped[int]
    device: Mapped[str]
    version: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("kind IN ('train', 'generate', 'default')", name="kind"),
        CheckConstraint("state IN ('ready', 'busy', 'draining', 'stopped')", name="state"),
        Index(None, "heartbeat_at"),
    )
