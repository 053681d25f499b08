"""Tables of image generation."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from store.models.base import Base, Leased
from store.models.columns import ID_TYPE, Bytes, Json, RowId, Seed, status_type
from store.states import GenerationStatus

_HELD: Final = "status = 'running'"
_OPEN: Final = "status IN ('queued', 'running')"


class Generation(Leased, Base):
    """One request for images, or for scores of images, to the generate workers."""

    __tablename__ = "generations"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    api_key_id: Mapped[str | None] = mapped_column(
        ID_TYPE, ForeignKey("api_keys.id", ondelete="SET NULL")
    )
    kind: Mapped[str] = mapped_column(String(16))
    """`generate` or `score`."""
    request: Mapped[Json]
    """Resolved and immutable, seeds included."""
    caller: Mapped[str] = mapped_column(String(64), server_default=text("''"))
    """Whose turn it uses: its API key, or its project without one."""
    turn: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Place in the queue in rounds, of which each caller has one request each."""
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the answer says beside the images, such as warnings and timings."""
    batch_key: Mapped[str] = mapped_column(String(64))
    """Equal where requests may run as one batch: same base model, adapters, steps and size."""
    status: Mapped[GenerationStatus] = mapped_column(status_type(GenerationStatus))

    images: Mapped[list[Image]] = relationship(
        lazy="raise", passive_deletes=True, order_by="Image.position"
    )

    __table_args__ = (
        CheckConstraint(f"({_HELD}) = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint(f"({_HELD}) = (lease_owner IS NOT NULL)", name="owner"),
        CheckConstraint(f"({_OPEN}) = (finished_at IS NULL)", name="finished"),
        CheckConstraint("kind IN ('generate', 'score')", name="kind"),
        Index(
            "ix_generations_queue",
            text("priority DESC"),
            "turn",
            "id",
            postgresql_where=text("status = 'queued'"),
            sqlite_where=text("status = 'queued'"),
        ),
        Index(
            "ix_generations_turns",
            "caller",
            "priority",
            "turn",
            postgresql_where=text("status = 'queued'"),
            sqlite_where=text("status = 'queued'"),
        ),
        Index(
            "ix_generations_leases",
            "lease_expires_at",
            postgresql_where=text("lease_expires_at IS NOT NULL"),
            sqlite_where=text("lease_expires_at IS NOT NULL"),
        ),
        Index(None, "project", "id"),
        Index(None, "api_key_id"),
        Index(None, "finished_at"),
    )


class Image(Base):
    """One picture that a generation made or scored."""

    __tablename__ = "images"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    generation_id: Mapped[str] = mapped_column(
        ID_TYPE, ForeignKey("generations.id", ondelete="CASCADE")
    )
    position: Mapped[int]
    """Place in the answer, from 0."""
    kind: Mapped[str] = mapped_column(String(8))
    """`tuned`, or `base` for the base model's picture beside it."""
    prompt: Mapped[str]
    seed: Mapped[Seed | None]
    """None for a picture that came from outside to be scored."""
    width: Mapped[int]
    height: Mapped[int]
    media_type: Mapped[str] = mapped_column(String(64))
    scores: Mapped[Json]
    """Reward -> score in raw units."""
    object_key: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[Bytes]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("generation_id", "position"),
        CheckConstraint("kind IN ('base', 'tuned')", name="kind"),
    )
