"""Deletes what is needed no more: objects that no row names, and rows that are past their time.

An object is written before its row, so what no row names may be on its way: it is rubbish when it
is a day old and its writer cannot publish it any more. That also holds for a job without a row:
the database may be a backup of yesterday, or the bucket another service's too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

from sqlalchemy import select, union_all
from sqlalchemy.orm import Session

from shortft_core.errors import ArtifactError
from store import generations, idempotency, object_keys, workers
from store.engine import Database
from store.models import Adapter, Artifact, Checkpoint, Generation, Image, Job, Sample
from store.objects import ObjectStore
from store.states import HELD, OPEN_GENERATION, TERMINAL

AGE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Collected:
    """How much is gone."""

    generations: int
    objects: int
    idempotency_keys: int
    workers: int


@dataclass(frozen=True, slots=True)
class _Owner:
    """What a row says of the objects below its prefix."""

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


def collect(
    database: Database,
    objects: ObjectStore,
    *,
    older_than: timedelta = AGE,
    keep_generations: timedelta | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Collected:
    """Deletes all rubbish that is old enough; may run anywhere, any number of times at once.

    Generations are forgotten so long after their end, with their pictures; None keeps them.
    `should_stop` is asked before the objects of each row; the next round does the rest.
    """
    before = datetime.now(tz=UTC) - older_than
    generations_gone = _forget_generations(database, keep_generations, should_stop)
    kinds = (
        (object_keys.JOBS, _job),
        (object_keys.GENERATIONS, _generation),
        (object_keys.UPLOADS, _generation),
        (object_keys.PROBES, _nobody),
    )
    deleted = 0
    for prefix, owner_of in kinds:
        # Listed before rows are read: what is published in between is named by then.
        for row_id, keys in _by_owner(prefix, objects.list(prefix)):
            if should_stop():
                return Collected(generations_gone, deleted, idempotency_keys=0, workers=0)
            with database.read() as session:
                owner = owner_of(session, row_id)
            unneeded = [key for key in keys if not owner.needs(key)]
            deleted += sum(_delete(objects, key, before) for key in unneeded)
    return Collected(
        generations=generations_gone,
        objects=deleted,
        idempotency_keys=database.transact(idempotency.purge),
        workers=database.transact(workers.forget_silent),
    )


def _forget_generations(
    database: Database, keep: timedelta | None, should_stop: Callable[[], bool]
) -> int:
    if keep is None:
        return 0
    before, gone = datetime.now(tz=UTC) - keep, 0
    while not should_stop():
        found = database.transact(lambda s: generations.remove_finished_before(s, before))
        if not found:
            break
        gone += found
    return gone


def _by_owner(prefix: str, keys: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Keys by the id behind `prefix`; they are sorted."""
    grouped = groupby(keys, key=lambda key: key.removeprefix(prefix).partition("/")[0])
    return ((row_id, tuple(mine)) for row_id, mine in grouped)


def _delete(objects: ObjectStore, key: str, before: datetime) -> bool:
    """Whether the object was old enough, and is gone."""
    try:
        if objects.stat(key).modified_at > before:
            return False
    except ArtifactError:
        # Another collector was here.
        return False
    objects.delete(key)
    return True


def _job(session: Session, job_id: str) -> _Owner:
    job = session.get(Job, job_id)
    if job is None:
        return _Owner()
    files = union_all(
        select(Artifact.object_key).where(Artifact.job_id == job_id),
        select(Sample.object_key).where(Sample.job_id == job_id),
    )
    states = session.scalars(select(Checkpoint.object_key).where(Checkpoint.job_id == job_id))
    adapter = session.scalar(select(Adapter.prefix).where(Adapter.job_id == job_id))
    folders = [object_keys.checkpoint_folder(key) for key in states]
    folders += [prefix for prefix in (job.best_prefix, adapter) if prefix]
    folders.append(object_keys.prompts_prefix(job_id))
    if job.status not in TERMINAL:
        folders.append(object_keys.trajectories_prefix(job_id))
    token = job.lease_token if job.status in HELD else None
    return _Owner(frozenset(session.scalars(files)), tuple(folders), token)


def _nobody(_: Session, __: str) -> _Owner:
    """Of a probe: who wrote it has deleted it, unless it crashed."""
    return _Owner()


def _generation(session: Session, generation_id: str) -> _Owner:
    """Of pictures that it makes, and of those that were uploaded to be scored."""
    generation = session.get(Generation, generation_id)
    if generation is None:
        return _Owner()
    keys = session.scalars(select(Image.object_key).where(Image.generation_id == generation_id))
    is_open = generation.status in OPEN_GENERATION
    return _Owner(frozenset(keys), (), generation.lease_token if is_open else None)
