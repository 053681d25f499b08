"""What callers name when they want an adapter: a finished one, or one that a job has stored so far.

`adp_…` and `job_…` are results, `job_…@best` the best folder and `job_…@40` the checkpoint of an
update; the last two are there while the job still runs, and after it failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from shortft_core.errors import UserError
from shortft_core.spec.common import Source
from store import object_keys
from store.errors import NotFoundError
from store.models import Adapter, Checkpoint, Job

CARD: Final = "shortft.json"
_FIELD: Final = "adapters"
_FORMS: Final = "Give adp_…, job_…, job_…@best or job_…@<update>"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterReference:
    """A stored adapter folder."""

    id: str
    """As the caller named it."""
    prefix: str
    """Key prefix of the folder."""
    base_model: Source
    """What its job tuned, with the revision that was pinned."""
    card: Mapping[str, Any] | None
    """Content of `shortft.json` where a row holds it, else to be read from `card_key`."""

    @property
    def card_key(self) -> str:
        """Key of `shortft.json`."""
        return self.prefix + CARD


def resolve(session: Session, reference: str, project: str) -> AdapterReference:
    """The folder that a caller means.

    Raises NotFoundError, for others' adapters too, and UserError for a folder that is not stored
    or for text of another form.
    """
    row_id, at, which = reference.partition("@")
    if row_id.startswith("adp_") and not at:
        adapter = session.scalar(
            select(Adapter).where(Adapter.id == row_id, Adapter.project == project)
        )
        if adapter is None:
            raise NotFoundError("adapter", row_id)
        return _found(reference, _job(session, adapter.job_id, project), adapter.prefix, adapter)
    if row_id.startswith("job_"):
        return _of_job(session, reference, _job(session, row_id, project), which if at else None)
    raise UserError(_FIELD, f"{reference!r} names no adapter", _FORMS)


def _of_job(session: Session, reference: str, job: Job, which: str | None) -> AdapterReference:
    if job.kind != "align":
        problem = f"{job.id} makes a {job.kind} result, not an adapter"
        raise UserError(_FIELD, problem, "Name a job of kind align")
    if which is None:
        return _result(session, reference, job)
    if which == "best":
        if job.best_prefix is None:
            raise UserError(
                _FIELD, f"{job.id} has stored no best adapter yet", _others(session, job)
            )
        return _found(reference, job, job.best_prefix)
    return _checkpoint(session, reference, job, which)


def _result(session: Session, reference: str, job: Job) -> AdapterReference:
    adapter = session.scalar(select(Adapter).where(Adapter.job_id == job.id))
    if adapter is None:
        raise UserError(_FIELD, f"{job.id} is {job.status} without a result", _others(session, job))
    return _found(reference, job, adapter.prefix, adapter)


def _checkpoint(session: Session, reference: str, job: Job, which: str) -> AdapterReference:
    # More digits than any update has would not fit the column.
    if not (which.isascii() and which.isdigit() and len(which) < 10):
        raise UserError(_FIELD, f"{reference!r} names no adapter", _FORMS)
    key = session.scalar(
        select(Checkpoint.object_key)
        .where(Checkpoint.job_id == job.id, Checkpoint.update == int(which))
        .order_by(Checkpoint.lease_token.desc())
        .limit(1)
    )
    if key is None:
        problem = f"{job.id} keeps no checkpoint of update {int(which)}"
        raise UserError(_FIELD, problem, _others(session, job))
    return _found(reference, job, object_keys.checkpoint_adapter(key))


def _found(
    reference: str, job: Job, prefix: str, adapter: Adapter | None = None
) -> AdapterReference:
    return AdapterReference(
        id=reference,
        prefix=prefix,
        base_model=Source.model_validate(job.spec["base_model"]),
        card=adapter.card if adapter is not None else None,
    )


def _others(session: Session, job: Job) -> str:
    """What the job has stored, as a remedy."""
    updates = session.scalars(
        select(Checkpoint.update)
        .where(Checkpoint.job_id == job.id)
        .distinct()
        .order_by(Checkpoint.update)
    )
    stored = [f"{job.id}@best"] if job.best_prefix is not None else []
    stored += [f"{job.id}@{update}" for update in updates]
    return f"Use {' or '.join(stored)}" if stored else "Wait for its first checkpoint"


def _job(session: Session, job_id: str, project: str) -> Job:
    job = session.scalar(select(Job).where(Job.id == job_id, Job.project == project))
    if job is None:
        raise NotFoundError("job", job_id)
    return job
