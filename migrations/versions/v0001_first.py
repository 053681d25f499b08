"""The tables of jobs, generations and what surrounds them."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

_ID: Final = sa.String(40).with_variant(sa.String(40, collation="C"), "postgresql")
_TIME: Final = sa.DateTime(timezone=True)
_HELD: Final = "status IN ('cancelling', 'pausing', 'preparing', 'running')"
_TERMINAL: Final = "status IN ('cancelled', 'failed', 'succeeded')"
_TABLES: Final = (
    "api_keys",
    "idempotency_keys",
    "prompt_sets",
    "workers",
    "generations",
    "jobs",
    "adapters",
    "artifacts",
    "checkpoints",
    "images",
    "job_events",
    "samples",
)


def upgrade() -> None:
    """Creates every table, those that others refer to first."""
    _create_api_keys()
    _create_idempotency_keys()
    _create_prompt_sets()
    _create_workers()
    _create_generations()
    _create_jobs()
    _create_adapters()
    _create_artifacts()
    _create_checkpoints()
    _create_images()
    _create_job_events()
    _create_samples()


def downgrade() -> None:
    """Drops every table."""
    for table in reversed(_TABLES):
        op.drop_table(table)


def _counter(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)


def _string(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _status(*statuses: str) -> sa.Column[str]:
    kind = sa.Enum(*statuses, name="status", native_enum=False, create_constraint=True, length=16)
    return sa.Column("status", kind, nullable=False)


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _reference(table: str, column: str, other: str, ondelete: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{other}")
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete=ondelete)


def _leased() -> tuple[sa.Column[Any], ...]:
    """Columns of work that a worker holds."""
    return (
        _counter("priority"),
        sa.Column("run_after", _TIME, nullable=False),
        sa.Column("woken_at", _TIME),
        sa.Column("lease_owner", sa.String(length=40)),
        _counter("lease_token"),
        sa.Column("lease_expires_at", _TIME),
        sa.Column("heartbeat_at", _TIME),
        _counter("attempt"),
        _counter("crashes"),
        _counter("lost_leases"),
        sa.Column("error_code", sa.String(length=64)),
        sa.Column("error_message", sa.Text()),
        sa.Column("exit_cause", sa.Text()),
        sa.Column("log_tail", sa.Text()),
        sa.Column("cancel_requested_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME),
        sa.Column("updated_at", _TIME, nullable=False),
    )


def _stored() -> tuple[sa.Column[Any], ...]:
    """Columns of what lies in the object store."""
    return (
        sa.Column("object_key", sa.Text(), nullable=False),
        _string("sha256", 64),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
    )


def _create_queue_indexes(table: str) -> None:
    """What is due, in the order of claims; and which leases may have expired."""
    queued, leased = sa.text("status = 'queued'"), sa.text("lease_expires_at IS NOT NULL")
    op.create_index(
        f"ix_{table}_queue",
        table,
        [sa.text("priority DESC"), "id"],
        postgresql_where=queued,
        sqlite_where=queued,
    )
    op.create_index(
        f"ix_{table}_leases",
        table,
        ["lease_expires_at"],
        postgresql_where=leased,
        sqlite_where=leased,
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, nullable=False),
        _string("project", 64),
        sa.Column("name", sa.Text(), nullable=False),
        _string("digest", 64),
        _string("last_characters", 4),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.Column("last_used_at", _TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_index(op.f("ix_api_keys_project_id"), "api_keys", ["project", "id"])


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        _string("project", 64),
        _string("operation", 200),
        _string("key", 255),
        _string("request_sha256", 64),
        sa.Column("resource_id", _ID, nullable=False),
        sa.Column("response_status", sa.Integer()),
        sa.Column("response", sa.JSON()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "operation", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_expires_at"), "idempotency_keys", ["expires_at"])


def _create_prompt_sets() -> None:
    op.create_table(
        "prompt_sets",
        sa.Column("id", _ID, nullable=False),
        _string("project", 64),
        sa.Column("name", sa.Text(), nullable=False),
        _string("sha256", 64),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("prompts", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_sets")),
        sa.UniqueConstraint("project", "name", name=op.f("uq_prompt_sets_project_name")),
    )
    op.create_index(op.f("ix_prompt_sets_project_id"), "prompt_sets", ["project", "id"])


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", _ID, nullable=False),
        _string("kind", 16),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.Text()),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        _string("version", 64),
        _string("state", 16),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("heartbeat_at", _TIME, nullable=False),
        _check("workers", "kind", "kind IN ('train', 'generate')"),
        _check("workers", "state", "state IN ('ready', 'busy', 'draining', 'stopped')"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index(op.f("ix_workers_heartbeat_at"), "workers", ["heartbeat_at"])


def _create_generations() -> None:
    op.create_table(
        "generations",
        sa.Column("id", _ID, nullable=False),
        _string("project", 64),
        sa.Column("api_key_id", _ID),
        _string("kind", 16),
        sa.Column("request", sa.JSON(), nullable=False),
        _string("batch_key", 64),
        _status("queued", "running", "succeeded", "failed", "cancelled"),
        *_leased(),
        _check("generations", "lease", "(status = 'running') = (lease_expires_at IS NOT NULL)"),
        _check("generations", "owner", "(status = 'running') = (lease_owner IS NOT NULL)"),
        _check(
            "generations", "finished", "(status IN ('queued', 'running')) = (finished_at IS NULL)"
        ),
        _check("generations", "kind", "kind IN ('generate', 'score')"),
        _reference("generations", "api_key_id", "api_keys", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    _create_queue_indexes("generations")
    op.create_index(op.f("ix_generations_api_key_id"), "generations", ["api_key_id"])
    op.create_index(op.f("ix_generations_project_id"), "generations", ["project", "id"])


def _progress() -> tuple[sa.Column[Any], ...]:
    """Columns that events of a job move."""
    return (
        _counter("event_seq"),
        _counter("updates_completed"),
        sa.Column("updates_total", sa.Integer()),
        _counter("resumable_update"),
        _counter("claimed_update"),
        sa.Column("best_update", sa.Integer()),
        sa.Column("latest_metrics", sa.JSON()),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _ID, nullable=False),
        _string("project", 64),
        sa.Column("api_key_id", _ID),
        sa.Column("parent_id", _ID),
        sa.Column("parent_update", sa.Integer()),
        _string("kind", 16),
        sa.Column("name", sa.Text()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        _string("spec_sha256", 64),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("method", sa.String(length=32)),
        _string("resource_class", 32),
        _status(
            "queued",
            "preparing",
            "running",
            "pausing",
            "paused",
            "cancelling",
            "cancelled",
            "succeeded",
            "failed",
        ),
        sa.Column("phase", sa.String(length=64)),
        sa.Column("pause_requested_at", _TIME),
        *_progress(),
        *_leased(),
        _check("jobs", "finished", f"({_TERMINAL}) = (finished_at IS NOT NULL)"),
        _check("jobs", "lease", f"({_HELD}) = (lease_expires_at IS NOT NULL)"),
        _check("jobs", "owner", f"({_HELD}) = (lease_owner IS NOT NULL)"),
        _reference("jobs", "api_key_id", "api_keys", "SET NULL"),
        _reference("jobs", "parent_id", "jobs", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    _create_queue_indexes("jobs")
    op.create_index(op.f("ix_jobs_api_key_id"), "jobs", ["api_key_id"])
    op.create_index(op.f("ix_jobs_parent_id"), "jobs", ["parent_id"])
    op.create_index(op.f("ix_jobs_project_id"), "jobs", ["project", "id"])


def _create_adapters() -> None:
    op.create_table(
        "adapters",
        sa.Column("id", _ID, nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        _string("project", 64),
        sa.Column("name", sa.Text()),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("artifact_ids", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        _reference("adapters", "job_id", "jobs", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adapters")),
        sa.UniqueConstraint("job_id", name=op.f("uq_adapters_job_id")),
    )
    op.create_index(op.f("ix_adapters_project_id"), "adapters", ["project", "id"])


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        _string("kind", 64),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        *_stored(),
        _reference("artifacts", "job_id", "jobs", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("job_id", "kind", name=op.f("uq_artifacts_job_id_kind")),
    )


def _create_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("id", _ID, nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("update", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        *_stored(),
        _reference("checkpoints", "job_id", "jobs", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint(
            "job_id", "update", "lease_token", name=op.f("uq_checkpoints_job_id_update_lease_token")
        ),
    )


def _create_images() -> None:
    op.create_table(
        "images",
        sa.Column("id", _ID, nullable=False),
        sa.Column("generation_id", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        _string("kind", 8),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        _string("media_type", 64),
        sa.Column("scores", sa.JSON(), nullable=False),
        *_stored(),
        _check("images", "kind", "kind IN ('base', 'tuned')"),
        _reference("images", "generation_id", "generations", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint(
            "generation_id", "position", name=op.f("uq_images_generation_id_position")
        ),
    )


def _create_job_events() -> None:
    op.create_table(
        "job_events",
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", _ID, nullable=False),
        _string("type", 64),
        _string("level", 8),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        _reference("job_events", "job_id", "jobs", "CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_job_events")),
        sa.UniqueConstraint("id", name=op.f("uq_job_events_id")),
    )
    op.create_index(op.f("ix_job_events_job_id_type_seq"), "job_events", ["job_id", "type", "seq"])


def _create_samples() -> None:
    op.create_table(
        "samples",
        sa.Column("id", _ID, nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("update", sa.Integer(), nullable=False),
        _string("kind", 8),
        sa.Column("pair_index", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        *_stored(),
        _check("samples", "kind", "kind IN ('base', 'tuned')"),
        _reference("samples", "job_id", "jobs", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_samples")),
        sa.UniqueConstraint(
            "job_id",
            "update",
            "pair_index",
            "kind",
            name=op.f("uq_samples_job_id_update_pair_index_kind"),
        ),
    )
