"""Tables of a job and of what it leaves behind."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from store.models.base import Base, Leased
from store.models.columns import ID_TYPE, Bytes, Json, RowId, Seed, Strings, status_type
from store.states import HELD, TERMINAL, JobStatus


def _in(statuses: frozenset[JobStatus]) -> str:
    return f"status IN ({', '.join(repr(status.value) for status in sorted(statuses))})"


def _job_reference() -> Mapped[str]:
    return mapped_column(ID_TYPE, ForeignKey("jobs.id", ondelete="CASCADE"))


class Job(Leased, Base):
    """One job: what was asked for, where it stands, and who works on it."""

    __tablename__ = "jobs"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    """Whose it is."""
    api_key_id: Mapped[str | None] = mapped_column(
        ID_TYPE, ForeignKey("api_keys.id", ondelete="SET NULL")
    )
    parent_id: Mapped[str | None] = mapped_column(
        ID_TYPE, ForeignKey("jobs.id", ondelete="SET NULL")
    )
    """The job that this one retries or reruns."""
    parent_update: Mapped[int | None]
    """Update of the parent's checkpoint that this one goes on from; None from the start."""
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str | None]
    labels: Mapped[dict[str, str]] = mapped_column("metadata", JSON)
    """The caller's own labels."""
    spec: Mapped[Json]
    """Resolved and immutable."""
    spec_sha256: Mapped[str] = mapped_column(String(64))
    base_model: Mapped[str]
    method: Mapped[str | None] = mapped_column(String(32))
    resource_class: Mapped[str] = mapped_column(String(32))
    """Which workers may claim it."""
    status: Mapped[JobStatus] = mapped_column(status_type(JobStatus))
    phase: Mapped[str | None] = mapped_column(String(64))
    pause_requested_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Number of the last event."""
    updates_completed: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    updates_total: Mapped[int | None]
    resumable_update: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Update of the newest checkpoint."""
    claimed_update: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """`resumable_update` when the attempt began: what it is above that is progress."""
    best_update: Mapped[int | None]
    """Update of the preferred checkpoint."""
    best_prefix: Mapped[str | None]
    """Key prefix of the newest stored adapter folder that was the best so far."""
    device: Mapped[str | None]
    """What its last worker computes on."""
    log_number: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Number of the last log line."""
    receipt: Mapped[str | None] = mapped_column(String(32))
    """Of the last transaction that its worker has written."""
    latest_metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    artifacts: Mapped[list[Artifact]] = relationship(
        lazy="raise", passive_deletes=True, order_by="Artifact.kind"
    )
    adapter: Mapped[Adapter | None] = relationship(lazy="raise", passive_deletes=True)

    __table_args__ = (
        CheckConstraint(f"({_in(HELD)}) = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint(f"({_in(HELD)}) = (lease_owner IS NOT NULL)", name="owner"),
        CheckConstraint(f"({_in(TERMINAL)}) = (finished_at IS NOT NULL)", name="finished"),
        Index(
            "ix_jobs_queue",
            text("priority DESC"),
            "id",
            postgresql_where=text("status = 'queued'"),
            sqlite_where=text("status = 'queued'"),
        ),
        Index(
            "ix_jobs_leases",
            "lease_expires_at",
            postgresql_where=text("lease_expires_at IS NOT NULL"),
            sqlite_where=text("lease_expires_at IS NOT NULL"),
        ),
        Index(
            "ix_jobs_measured",
            "base_model",
            "method",
            "device",
            "id",
            postgresql_where=text("status = 'succeeded'"),
            sqlite_where=text("status = 'succeeded'"),
        ),
        Index(None, "project", "id"),
        Index(None, "parent_id"),
        Index(None, "api_key_id"),
    )


class JobEvent(Base):
    """One line of a job's history; written once, never changed."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(
        ID_TYPE, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """1, 2, 3, … within the job, in the order of commits."""
    id: Mapped[RowId] = mapped_column(unique=True)
    type: Mapped[str] = mapped_column(String(64))
    level: Mapped[str] = mapped_column(String(8))
    message: Mapped[str]
    data: Mapped[Json]
    created_at: Mapped[datetime]
    """By the clock of whoever reports it."""

    __table_args__ = (Index(None, "job_id", "type", "seq"),)


class JobLog(Base):
    """One line that a job's process wrote beside its events."""

    __tablename__ = "job_logs"

    job_id: Mapped[str] = mapped_column(
        ID_TYPE, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """1, 2, 3, … within the job, over all its attempts."""
    attempt: Mapped[int]
    text: Mapped[str]
    created_at: Mapped[datetime]


class Checkpoint(Base):
    """A state that a job can resume from."""

    __tablename__ = "checkpoints"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    job_id: Mapped[str] = _job_reference()
    update: Mapped[int]
    lease_token: Mapped[int]
    """Of the attempt that wrote it."""
    object_key: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[Bytes]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("job_id", "update", "lease_token"),)


class Sample(Base):
    """One picture of an evaluation: of the base model or of the tuned one."""

    __tablename__ = "samples"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    job_id: Mapped[str] = _job_reference()
    update: Mapped[int]
    kind: Mapped[str] = mapped_column(String(8))
    """`base` or `tuned`."""
    pair_index: Mapped[int]
    """Place of the prompt and seed in the evaluation, from 0; the same in every evaluation."""
    prompt: Mapped[str]
    seed: Mapped[Seed]
    scores: Mapped[Json]
    """Judge -> score in raw units."""
    object_key: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[Bytes]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("job_id", "update", "pair_index", "kind"),
        CheckConstraint("kind IN ('base', 'tuned')", name="kind"),
    )


class Artifact(Base):
    """One file of a finished job's result."""

    __tablename__ = "artifacts"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    job_id: Mapped[str] = _job_reference()
    kind: Mapped[str] = mapped_column(String(64))
    """What it is, such as `peft`, `kohya`, `report`; once per job."""
    filename: Mapped[str]
    """Name under which it is downloaded."""
    lease_token: Mapped[int]
    """Of the attempt that published it."""
    object_key: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[Bytes]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("job_id", "kind"),)


class Adapter(Base):
    """What a finished alignment yields and `generate` may name."""

    __tablename__ = "adapters"

    id: Mapped[RowId] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(
        ID_TYPE, ForeignKey("jobs.id", ondelete="CASCADE"), unique=True
    )
    project: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None]
    base_model: Mapped[str]
    card: Mapped[Json]
    """Content of `shortft.json`."""
    artifact_ids: Mapped[Strings]
    """The artifacts that it is loaded from."""
    prefix: Mapped[str]
    """Key prefix of its folder, in which `shortft.json` lies."""
    created_at: Mapped[datetime]

    __table_args__ = (Index(None, "project", "id"),)
