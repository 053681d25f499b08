"""A job names the last transaction of its worker, so that none is written twice."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    """Adds the column."""
    op.add_column("jobs", sa.Column("receipt", sa.String(32)))


def downgrade() -> None:
    """Takes it back."""
    op.drop_column("jobs", "receipt")
