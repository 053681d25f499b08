"""The run folder of an attempt, filled with what earlier attempts stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Final, get_args

from sqlalchemy.orm import Session

from shortft_core.adapter_card import CARD_FILE
from shortft_core.events import (
    EvaluationDone,
    Event,
    LogLine,
    SamplesReady,
    from_envelope,
    to_envelope,
)
from store import events, jobs, object_keys, prompt_sets, results
from store.models import Checkpoint, Job
from store.objects import ObjectStore, copy_to_file
from worker.outages import storing
from worker.train.records import Records
from worker.train.stored import MANIFEST_FILE, STATE_FILE, TRAJECTORIES

EVENTS_FILE: Final = "events.jsonl"
_TYPES: Final = frozenset(kind.model_fields["type"].default for kind in get_args(Event))
_PAGE: Final = 500


class _Found(StrEnum):
    """What became of a checkpoint in the store."""

    WHOLE = auto()
    DAMAGED = auto()
    ABSENT = auto()


@dataclass(frozen=True, kw_only=True)
class Restorer:
    """Fills one run folder; every method raises StorageError where the store stays away."""

    job: Job
    objects: ObjectStore
    records: Records
    folder: Path
    give_up: Callable[[], bool]

    def restore(self) -> dict[str, Any]:
        """Makes the folder anew and returns the specification that the trainer gets.

        Raises LeaseLostError, and NotFoundError for a prompt set that is gone.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        spec = self._with_prompts(self.job.spec)
        self._trajectories()
        update = self._checkpoint()
        if update is not None:
            self._best()
            self._history()
        return spec

    def _checkpoint(self) -> int | None:
        """Update of the newest checkpoint that is whole, now in the folder."""
        for row in self.records.read(lambda session: _candidates(session, self.job)):
            found = self._fetch_checkpoint(row)
            if found is _Found.WHOLE:
                return row.update
            message = f"checkpoint {row.update} is {found}; an older state is resumed from"
            self.records.note(LogLine(level="warn", message=message))
            # One that is not there may come back, with the disk that was not mounted.
            if found is _Found.DAMAGED and row.job_id == self.job.id:
                self._forget(row)
        return None

    def _forget(self, row: Checkpoint) -> None:
        self.records.write(lambda session, lease: results.forget_checkpoint(session, lease, row.id))

    def _fetch_checkpoint(self, row: Checkpoint) -> _Found:
        """Whether state and manifest are those that were stored."""
        prefix = object_keys.checkpoint_folder(row.object_key)
        local = self.folder / "checkpoints" / f"{row.update:06d}"
        state = self._fetch(prefix + STATE_FILE, local / STATE_FILE)
        manifest = self._fetch(prefix + MANIFEST_FILE, local / MANIFEST_FILE)
        if state == row.sha256 and manifest and _vouches(local / MANIFEST_FILE, row.sha256):
            return _Found.WHOLE
        shutil.rmtree(local, ignore_errors=True)
        return _Found.ABSENT if state is None or manifest is None else _Found.DAMAGED

    def _best(self) -> None:
        """The best adapter so far, which the manifest knows by its update alone."""
        prefix = self.job.best_prefix
        if prefix is None:
            prefix = self.records.read(lambda session: _inherited_best(session, self.job))
        if prefix is None:
            return
        card = prefix + CARD_FILE
        if storing(card, lambda: self.objects.exists(card), self.give_up):
            self._fetch_folder(prefix, self.folder / "best")

    def _trajectories(self) -> None:
        """What a distillation has recorded; what is missing of it is recorded anew."""
        parent_id = self.job.parent_id if self.job.parent_update is not None else None
        for job_id in filter(None, (parent_id, self.job.id)):
            self._fetch_folder(object_keys.trajectories_prefix(job_id), self.folder / TRAJECTORIES)

    def _history(self) -> None:
        """The events so far, and the pictures that a report will show of them."""
        found = self.records.read(lambda session: tuple(_history(session, self.job.id)))
        local = [_with_local_keys(event, self.job.id) for event in found]
        lines = [json.dumps(to_envelope(event), ensure_ascii=False) + "\n" for event in local]
        (self.folder / EVENTS_FILE).write_text("".join(lines), encoding="utf-8")
        for key in _shown_pictures(found):
            self._fetch(key, self.folder / _local_key(key, self.job.id))

    def _with_prompts(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The specification with uploaded prompt sets as files, by paths within the folder.

        Relative ones, so that the specification is the same in every attempt.
        """
        prompts, evaluation = self._local(spec["prompts"]), dict(spec["evaluation"])
        evaluation["prompts"] = self._local(evaluation.get("prompts"))
        return {**spec, "prompts": prompts, "evaluation": evaluation}

    def _local(self, source: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if source is None or source.get("id") is None:
            return source
        name = f"{source['id']}.json"
        local = self.folder / "prompts" / name
        kept = object_keys.prompts_prefix(self.job.id) + name
        # A set that was deleted since goes on living with the jobs that began with it.
        if self._fetch(kept, local) is None:
            data = self._inherited(name, local) or self._uploaded(source["id"])
            storing(kept, lambda: self.objects.write(kept, data), self.give_up)
            local.parent.mkdir(exist_ok=True)
            local.write_bytes(data)
        return {**source, "id": None, "path": f"prompts/{name}", "column": None}

    def _inherited(self, name: str, local: Path) -> bytes | None:
        """The prompts as the nearest of the jobs keeps them that this one repeats.

        One that was cancelled before it began keeps none.
        """
        for job_id in self.records.read(lambda session: _ancestors(session, self.job)):
            kept = object_keys.prompts_prefix(job_id) + name
            if self._fetch(kept, local) is not None:
                return local.read_bytes()
        return None

    def _uploaded(self, prompt_set_id: str) -> bytes:
        texts = self.records.read(
            lambda session: prompt_sets.load(session, prompt_set_id, self.job.project).prompts
        )
        return json.dumps(texts).encode()

    def _fetch_folder(self, prefix: str, local: Path) -> None:
        for key in storing(prefix, lambda: self.objects.list(prefix), self.give_up):
            self._fetch(key, local / key.removeprefix(prefix))

    def _fetch(self, key: str, target: Path) -> str | None:
        """Copies an object into a file and returns its sha256; None where there is no object."""
        if not storing(key, lambda: self.objects.exists(key), self.give_up):
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        return storing(key, lambda: copy_to_file(self.objects, key, target), self.give_up)


def _candidates(session: Session, job: Job) -> tuple[Checkpoint, ...]:
    """Checkpoints of the job, the newest first; those of the job that it retries behind them."""
    own = results.checkpoints(session, job.id)
    if job.parent_id is None or job.parent_update is None:
        return own
    inherited = results.checkpoints(session, job.parent_id)
    return (*own, *(row for row in inherited if row.update <= (job.parent_update or 0)))


def _inherited_best(session: Session, job: Job) -> str | None:
    """Of the job that this one goes on from; one that begins anew has nothing of it."""
    parent = _parent(session, job) if job.parent_update is not None else None
    return parent.best_prefix if parent is not None else None


def _ancestors(session: Session, job: Job) -> tuple[str, ...]:
    """The job that this one repeats, then the one that that repeats, and so on."""
    found: list[str] = []
    above = _parent(session, job)
    while above is not None:
        found.append(above.id)
        above = _parent(session, above)
    return tuple(found)


def _parent(session: Session, job: Job) -> Job | None:
    """None also where it was deleted since."""
    wanted = (job.parent_id,) if job.parent_id is not None else ()
    return next(iter(jobs.get_many(session, wanted).values()), None)


def _vouches(manifest: Path, sha256: str) -> bool:
    try:
        content = json.loads(manifest.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("state_sha256") == sha256


def _history(session: Session, job_id: str) -> list[Event]:
    found: list[Event] = []
    seq = 0
    while page := events.after(session, job_id, seq, types=_TYPES, limit=_PAGE):
        found += [from_envelope(events.envelope(row)) for row in page]
        seq = page[-1].seq
    return found


def _with_local_keys(event: Event, job_id: str) -> Event:
    """Pictures under the names that they have in a run folder."""
    if not isinstance(event, SamplesReady):
        return event
    content = event.model_dump(mode="json")
    for pair in content["pairs"]:
        for picture in (pair["base"], pair["tuned"]):
            picture["key"] = _local_key(picture["key"], job_id)
    return SamplesReady.model_validate(content)


def _local_key(key: str, job_id: str) -> str:
    """Behind the token still, so that base pictures of two attempts are two files."""
    return key.removeprefix(object_keys.job_prefix(job_id))


def _shown_pictures(history: Sequence[Event]) -> set[str]:
    """Those of the best and of the last evaluation."""
    samples = {event.update: event for event in history if isinstance(event, SamplesReady)}
    best = [e.update for e in history if isinstance(e, EvaluationDone) and e.is_best]
    shown = {update for update in (max(samples, default=None), *best[-1:]) if update in samples}
    return {
        picture.key
        for update in shown
        for pair in samples[update].pairs
        for picture in (pair.base, pair.tuned)
    }
