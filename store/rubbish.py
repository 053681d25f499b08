"""Deletes what is needed no more: objects that no row names, and rows that are past their time.

An object is written before its row, so what no row names may be on its way: it is rubbish when it
is a day old and its writer cannot publish it any more. A job's row is there before its objects, so
those of a deleted job go at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

from sqlalchemy import select, union_all
from sqlalchemy.orm import Session

from shortft_core.errors import ArtifactError
from store import idempotency, object_keys, workers
from store.engine import Database
from store.models import Adapter, Artifact, Checkpoint, Generation, Image, Job, Sample
from store.objects import ObjectStore
from store.states import HELD, OPEN_GENERATION

AGE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Collected:
    """How much is gone."""

    objects: int
    idempotency_keys: int
    workers: int


@dataclass(frozen=True, slots=True)
class _Owner:
    """What a row says of the objects below its prefix."""

    exists: bool
    keys: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    running_token: int | None = None
    """Of an attempt that may still publish."""

    def needs(self, key: str) -> bool:
        """Whether a row names the key, or an attempt that is under way may be about to."""
        if key in self.keys or key.startswith(self.prefixes):
            return True
        if self.running_token is None:
            return False
        token = object_keys.token_of(key)
        return token is None or token >= self.running_token


def collect(database: Database, objects: ObjectStore, *, older_than: timedelta = AGE) -> Collected:
    """Deletes all rubbish that is old enough; may run anywhere, any number of times at once."""
    before = datetime.now(tz=UTC) - older_than
    kinds = (
        (object_keys.JOBS, _job, False),
        (object_keys.GENERATIONS, _generation, True),
        (object_keys.UPLOADS, _generation, True),
    )
    deleted = 0
    for prefix, owner_of, may_precede_row in kinds:
        # Listed before rows are read: what is published in between is named by then.
        for row_id, keys in _by_owner(prefix, objects.list(prefix)):
            with database.read() as session:
                owner = owner_of(session, row_id)
            at_once = not (owner.exists or may_precede_row)
            unneeded = [key for key in keys if not owner.needs(key)]
            deleted += sum(_delete(objects, key, None if at_once else before) for key in unneeded)
    return Collected(
        objects=deleted,
        idempotency_keys=database.transact(idempotency.purge),
        workers=database.transact(workers.forget_silent),
    )


def _by_owner(prefix: str, keys: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Keys by the id behind `prefix`; they are sorted."""
    grouped = groupby(keys, key=lambda key: key.removeprefix(prefix).partition("/")[0])
    return ((row_id, tuple(mine)) for row_id, mine in grouped)


def _delete(objects: ObjectStore, key: str, before: datetime | None) -> bool:
    """Whether the object was old enough, and is gone."""
    try:
        if before is not None and objects.stat(key).modified_at > before:
            return False
    except ArtifactError:
        # Another collector was here.
        return False
    objects.delete(key)
    return True


def _job(session: Session, job_id: str) -> _Owner:
    job = session.get(Job, job_id)
    if job is None:
        return _Owner(exists=False)
    files = union_all(
        select(Artifact.object_key).where(Artifact.job_id == job_id),
        select(Sample.object_key).where(Sample.job_id == job_id),
    )
    states = session.scalars(select(Checkpoint.object_key).where(Checkpoint.job_id == job_id))
    adapter = session.scalar(select(Adapter.prefix).where(Adapter.job_id == job_id))
    folders = [object_keys.checkpoint_folder(key) for key in states]
    folders += [prefix for prefix in (job.best_prefix, adapter) if prefix]
    folders.append(object_keys.prompts_prefix(job_id))
    token = job.lease_token if job.status in HELD else None
    return _Owner(True, frozenset(session.scalars(files)), tuple(folders), token)


def _generation(session: Session, generation_id: str) -> _Owner:
    """Of pictures that it makes, and of those that were uploaded to be scored."""
    generation = session.get(Generation, generation_id)
    if generation is None:
        return _Owner(exists=False)
    keys = session.scalars(select(Image.object_key).where(Image.generation_id == generation_id))
    is_open = generation.status in OPEN_GENERATION
    return _Owner(True, frozenset(keys), (), generation.lease_token if is_open else None)
