"""What a job leaves behind: checkpoints and samples while it runs, artifacts at its end.

Objects come first, rows second: a row never names bytes that are not stored. The artifacts and the
status `succeeded` are one commit on the lease's token, so a job is published exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, tuple_
from sqlalchemy.orm import Session

from shortft_core.events import CheckpointSaved, Picture, SamplesReady
from store.clock import database_now
from store.errors import NotFoundError
from store.events import append, append_entries
from store.ids import new_id
from store.models import Adapter, Artifact, Checkpoint, Job, Sample
from store.objects import StoredObject
from store.pages import Page, PageRequest, fetch_page
from store.states import Trigger
from store.transitions import Entry, Lease, change, lock_held


@dataclass(frozen=True, kw_only=True, slots=True)
class NewArtifact:
    """A stored file that is about to become part of a job's result."""

    kind: str
    filename: str
    stored: StoredObject


@dataclass(frozen=True, kw_only=True, slots=True)
class NewAdapter:
    """What `generate` will load."""

    card: Mapping[str, Any]
    """Content of `shortft.json`."""
    artifact_kinds: tuple[str, ...]
    """Which artifacts it is loaded from."""
    prefix: str
    """Key prefix of its folder, in which `shortft.json` lies."""


def add_checkpoint(session: Session, lease: Lease, event: CheckpointSaved) -> Checkpoint:
    """Records a stored checkpoint and its event; raises LeaseLostError."""
    append(session, lease, [event])
    return session.scalars(
        insert(Checkpoint).returning(Checkpoint),
        [
            {
                "id": new_id("ckpt"),
                "job_id": lease.row_id,
                "update": event.update,
                "lease_token": lease.token,
                "object_key": event.key,
                "sha256": event.sha256,
                "size_bytes": event.size_bytes,
                "created_at": database_now(session),
            }
        ],
    ).one()


def set_best(session: Session, lease: Lease, update: int, prefix: str) -> None:
    """Names the stored adapter folder of the best update so far; raises LeaseLostError."""
    append_entries(session, lease, [], {"best_update": update, "best_prefix": prefix})


def add_samples(
    session: Session, lease: Lease, event: SamplesReady, stored: Mapping[str, StoredObject]
) -> None:
    """Records the pictures of an evaluation and its event; `stored` maps keys to their objects.

    An evaluation that is repeated after a crash replaces the pictures of the first time. Raises
    LeaseLostError.
    """
    append(session, lease, [event])
    session.execute(
        delete(Sample).where(Sample.job_id == lease.row_id, Sample.update == event.update)
    )
    now = database_now(session)
    rows = [
        {
            "job_id": lease.row_id,
            "update": event.update,
            "kind": kind,
            "pair_index": index,
            "prompt": pair.prompt,
            "seed": pair.seed,
            **_picture(picture, stored[picture.key], now),
        }
        for index, pair in enumerate(event.pairs)
        for kind, picture in (("base", pair.base), ("tuned", pair.tuned))
    ]
    if rows:
        session.execute(insert(Sample), rows)


def _picture(picture: Picture, stored: StoredObject, now: datetime) -> dict[str, Any]:
    return {
        "id": new_id("smp"),
        "scores": dict(picture.scores),
        "object_key": stored.key,
        "sha256": stored.sha256,
        "size_bytes": stored.size_bytes,
        "created_at": now,
    }


def succeed(
    session: Session,
    lease: Lease,
    artifacts: Sequence[NewArtifact],
    adapter: NewAdapter | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Job:
    """Publishes the result and ends the job; `summary` becomes the data of the last event.

    Raises LeaseLostError, and InvalidStateError when a cancel or a pause came first: the worker
    then releases the job instead.
    """
    job = lock_held(session, lease)
    entry = Entry("job.succeeded", data=summary or {})
    job = change(session, job, Trigger.SUCCEED, entry)
    now = database_now(session)
    ids = {artifact.kind: new_id("art") for artifact in artifacts}
    rows = [
        {
            "id": ids[artifact.kind],
            "job_id": job.id,
            "kind": artifact.kind,
            "filename": artifact.filename,
            "lease_token": lease.token,
            "object_key": artifact.stored.key,
            "sha256": artifact.stored.sha256,
            "size_bytes": artifact.stored.size_bytes,
            "created_at": now,
        }
        for artifact in artifacts
    ]
    if rows:
        session.execute(insert(Artifact), rows)
    if adapter is not None:
        session.execute(insert(Adapter), [_adapter(job, adapter, ids, now)])
    return job


def _adapter(job: Job, new: NewAdapter, ids: Mapping[str, str], now: datetime) -> dict[str, Any]:
    return {
        "id": new_id("adp"),
        "job_id": job.id,
        "project": job.project,
        "name": job.name,
        "base_model": job.base_model,
        "card": dict(new.card),
        "artifact_ids": [ids[kind] for kind in new.artifact_kinds],
        "prefix": new.prefix,
        "created_at": now,
    }


def checkpoints(session: Session, job_id: str) -> tuple[Checkpoint, ...]:
    """All checkpoints of a job, the newest first; the first that verifies is resumed from."""
    statement = (
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id)
        .order_by(Checkpoint.update.desc(), Checkpoint.lease_token.desc())
    )
    return tuple(session.scalars(statement))


def forget_checkpoint(session: Session, lease: Lease, checkpoint_id: str) -> None:
    """Removes a checkpoint's row, before its object is deleted; raises LeaseLostError."""
    lock_held(session, lease)
    session.execute(
        delete(Checkpoint).where(Checkpoint.id == checkpoint_id, Checkpoint.job_id == lease.row_id)
    )


def samples(
    session: Session,
    job_id: str,
    *,
    update: int | None = None,
    pair_index: int | None = None,
    kind: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> tuple[Sample, ...]:
    """Pictures of a job by update, pair, and base before tuned; those behind `after`, if given.

    Raises NotFoundError if `after` is no picture of the job, or no longer.
    """
    wanted = {"update": update, "pair_index": pair_index, "kind": kind}
    given = {name: value for name, value in wanted.items() if value is not None}
    place = (Sample.update, Sample.pair_index, Sample.kind)
    statement = select(Sample).filter_by(job_id=job_id, **given).order_by(*place).limit(limit)
    if after is not None:
        last = sample(session, job_id, after)
        statement = statement.where(tuple_(*place) > (last.update, last.pair_index, last.kind))
    return tuple(session.scalars(statement))


def sample(session: Session, job_id: str, sample_id: str) -> Sample:
    """One picture of a job; raises NotFoundError."""
    found = session.scalar(select(Sample).where(Sample.id == sample_id, Sample.job_id == job_id))
    if found is None:
        raise NotFoundError("sample", sample_id)
    return found


def artifacts(session: Session, job_id: str) -> tuple[Artifact, ...]:
    """The files of a job's result, by kind; empty until it has succeeded."""
    statement = select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.kind)
    return tuple(session.scalars(statement))


def artifact(session: Session, job_id: str, artifact_id: str) -> Artifact:
    """One file of a job's result; raises NotFoundError."""
    found = session.scalar(
        select(Artifact).where(Artifact.id == artifact_id, Artifact.job_id == job_id)
    )
    if found is None:
        raise NotFoundError("artifact", artifact_id)
    return found


def adapter(session: Session, adapter_id: str, project: str) -> Adapter:
    """One adapter of a project; raises NotFoundError."""
    found = session.scalar(
        select(Adapter).where(Adapter.id == adapter_id, Adapter.project == project)
    )
    if found is None:
        raise NotFoundError("adapter", adapter_id)
    return found


def adapters(session: Session, project: str, request: PageRequest) -> Page[Adapter]:
    """The adapters of a project, page by page."""
    statement = select(Adapter).where(Adapter.project == project)
    return fetch_page(session, statement, Adapter.id, request)
