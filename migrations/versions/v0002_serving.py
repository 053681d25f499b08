"""Log lines, folders of adapters, turns of callers, and what finished jobs ran on."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"

_ID: Final = sa.String(40).with_variant(sa.String(40, collation="C"), "postgresql")
_TIME: Final = sa.DateTime(timezone=True)
_QUEUED: Final = sa.text("status = 'queued'")
_SUCCEEDED: Final = sa.text("status = 'succeeded'")
_COLUMNS: Final = {
    "jobs": ("best_prefix", "device", "log_number"),
    "adapters": ("prefix",),
    "generations": ("caller", "turn", "outcome"),
}


def upgrade() -> None:
    """Adds the columns, the table of log lines, and chores as a kind of worker."""
    for column in (sa.Column("best_prefix", sa.Text()), sa.Column("device", sa.Text())):
        op.add_column("jobs", column)
    op.add_column("jobs", _counter("log_number"))
    _create_index("ix_jobs_measured", ["base_model", "method", "device", "id"], _SUCCEEDED)
    # No result was ever published before: there is no adapter that would need a value.
    op.add_column("adapters", sa.Column("prefix", sa.Text(), nullable=False))
    _upgrade_generations()
    _create_job_logs()
    _create_workers_anew("'train', 'generate', 'default'")


def downgrade() -> None:
    """Takes it back."""
    _create_workers_anew("'train', 'generate'")
    op.drop_table("job_logs")
    for index in ("ix_generations_turns", "ix_generations_queue"):
        op.drop_index(index, "generations")
    op.drop_index("ix_jobs_measured", "jobs")
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.drop_column(table, column)
    _create_index("ix_generations_queue", [sa.text("priority DESC"), "id"], _QUEUED)


def _upgrade_generations() -> None:
    caller = sa.Column("caller", sa.String(64), server_default=sa.text("''"), nullable=False)
    for column in (caller, _counter("turn"), sa.Column("outcome", sa.JSON())):
        op.add_column("generations", column)
    op.execute("UPDATE generations SET caller = coalesce(api_key_id, project)")
    op.drop_index("ix_generations_queue", "generations")
    _create_index("ix_generations_queue", [sa.text("priority DESC"), "turn", "id"], _QUEUED)
    _create_index("ix_generations_turns", ["caller", "priority", "turn"], _QUEUED)


def _create_job_logs() -> None:
    op.create_table(
        "job_logs",
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_job_logs_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_job_logs")),
    )


def _create_workers_anew(kinds: str) -> None:
    """SQLite cannot change a CHECK; living workers that find themselves gone register again."""
    op.drop_table("workers")
    op.create_table(
        "workers",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.Text()),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("heartbeat_at", _TIME, nullable=False),
        sa.CheckConstraint(f"kind IN ({kinds})", name=op.f("ck_workers_kind")),
        sa.CheckConstraint(
            "state IN ('ready', 'busy', 'draining', 'stopped')", name=op.f("ck_workers_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index(op.f("ix_workers_heartbeat_at"), "workers", ["heartbeat_at"])


def _create_index(name: str, columns: list[Any], where: sa.TextClause) -> None:
    table = name.split("_")[1]
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)


def _counter(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
