"""Figures count what was deleted too, so that no counter falls."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"

_ID: Final = sa.String(40).with_variant(sa.String(40, collation="C"), "postgresql")
_TIME: Final = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Adds the table, and finds generations that ended long ago by an index."""
    op.create_table(
        "tombstones",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME, nullable=False),
        sa.CheckConstraint("kind IN ('job', 'generation')", name=op.f("ck_tombstones_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tombstones")),
    )
    op.create_index("ix_generations_finished_at", "generations", ["finished_at"])


def downgrade() -> None:
    """Takes it back."""
    op.drop_index("ix_generations_finished_at", "generations")
    op.drop_table("tombstones")
