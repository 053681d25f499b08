"""What an attempt stores while it runs: objects first, then the rows that name them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session

from shortft_core.adapter_card import CARD_FILE, read_card
from shortft_core.artifacts import ArtifactStore
from shortft_core.errors import ArtifactError, UserError
from shortft_core.events import CheckpointSaved, LogLine, Picture, SamplePair, SamplesReady
from store import object_keys, results
from store.objects import ObjectStore, StoredObject
from store.transitions import Lease
from worker.outages import StorageError, storing
from worker.train.records import Records

_LOG: Final = logging.getLogger(__name__)
STATE_FILE: Final = "state.safetensors"
MANIFEST_FILE: Final = "manifest.json"
KEPT_CHECKPOINTS: Final = 2
"""The last good one is never deleted before the next is stored and verified."""
_SAMPLES: Final = "samples/"
TRAJECTORIES: Final = "trajectories"
"""Folder in which a distillation records, a file a chunk."""


class RunStorage:
    """Carries what a trainer wrote into its run folder to the object store and the rows."""

    def __init__(
        self, objects: ObjectStore, records: Records, folder: Path, give_up: Callable[[], bool]
    ) -> None:
        self.patience_seconds = 4.0
        """How long to try to store one file; a checkpoint is soon followed by the next."""
        self._objects = objects
        self._records = records
        self._folder = folder
        self._give_up = give_up
        self._job_id, self._token = records.lease.row_id, records.lease.token
        self._pictures: dict[str, StoredObject] = {}
        self._chunks: set[str] = set()

    def checkpoint(self, event: CheckpointSaved) -> None:
        """Stores a checkpoint, its manifest last, then its row; forgets those that are too old.

        One that cannot be stored is told of and left out: the next one may be. Raises
        LeaseLostError.
        """
        folder = object_keys.checkpoint_prefix(self._job_id, event.update, self._token)
        # Saved again, behind its evaluation, an update never touches what the row of before names.
        prefix = f"{folder}{event.sha256[:8]}/"
        local = self._folder / Path(event.key).parent
        try:
            stored = self.put_folder(local, prefix, last=MANIFEST_FILE)
            self._require_same(stored, event)
        except StorageError as error:
            text = f"checkpoint {event.update}: {error}; the job goes on"
            self._records.note(LogLine(level="warn", message=text))
            return
        named = event.model_copy(update={"key": object_keys.checkpoint_state(prefix)})
        outdated = self._records.write(lambda session, lease: _add(session, lease, named))
        for key in outdated:
            self._forget(object_keys.checkpoint_folder(key))

    def best(self, update: int) -> None:
        """Stores the best adapter so far and names it in the job's row; raises LeaseLostError."""
        prefix = object_keys.best_prefix(self._job_id, update, self._token)
        try:
            stored = self.put_folder(self._folder / "best", prefix, last=CARD_FILE)
        except StorageError as error:
            self._records.note(LogLine(level="warn", message=f"best adapter: {error}"))
            return
        except OSError:
            stored = {}
        if not is_whole(self._folder / "best", stored):
            # The trainer has put a better one there meanwhile, and is about to say so.
            return
        self._records.write(lambda session, lease: results.set_best(session, lease, update, prefix))

    def samples(self, event: SamplesReady) -> None:
        """Stores the pictures of an evaluation and their rows; raises LeaseLostError."""
        try:
            pairs = tuple(self._pair(pair) for pair in event.pairs)
        except StorageError as error:
            self._records.note(LogLine(level="warn", message=f"samples: {error}"))
            return
        named = event.model_copy(update={"pairs": pairs})
        stored = {picture.key: picture for picture in self._pictures.values()}
        self._records.write(
            lambda session, lease: results.add_samples(session, lease, named, stored)
        )

    def trajectories(self) -> None:
        """Stores what a distillation has recorded since, so that no attempt records it again."""
        prefix = object_keys.trajectories_prefix(self._job_id)
        local = self._folder / TRAJECTORIES
        try:
            for name in sorted(set(names_below(local)) - self._chunks):
                # Those of an earlier attempt are there: a chunk never changes.
                if not self._exists(prefix + name):
                    self.put_file(local / name, prefix + name)
                self._chunks.add(name)
        except StorageError as error:
            self._records.note(LogLine(level="warn", message=f"trajectories: {error}"))

    def put_folder(self, local: Path, prefix: str, *, last: str = "") -> dict[str, StoredObject]:
        """Stores every file of a folder, `last` behind the others; by path within the folder.

        Raises StorageError.
        """
        names = sorted(names_below(local), key=lambda name: (name == last, name))
        return {name: self.put_file(local / name, prefix + name) for name in names}

    def put_file(self, local: Path, key: str) -> StoredObject:
        """Stores one file; raises StorageError."""
        return storing(
            key,
            lambda: self._objects.write_file(key, local),
            self._give_up,
            patience_seconds=self.patience_seconds,
        )

    def _exists(self, key: str) -> bool:
        return storing(key, lambda: self._objects.exists(key), self._give_up)

    def _pair(self, pair: SamplePair) -> SamplePair:
        both = {"base": self._picture(pair.base), "tuned": self._picture(pair.tuned)}
        return pair.model_copy(update=both)

    def _picture(self, picture: Picture) -> Picture:
        prefix = object_keys.samples_prefix(self._job_id, self._token)
        key = prefix + picture.key.removeprefix(_SAMPLES)
        # The base model's pictures are the same in every evaluation of an attempt.
        if key not in self._pictures:
            self._pictures[key] = self.put_file(self._folder / picture.key, key)
        return picture.model_copy(update={"key": key})

    def _require_same(self, stored: Mapping[str, StoredObject], event: CheckpointSaved) -> None:
        state = stored.get(STATE_FILE)
        if state is None or state.sha256 != event.sha256 or MANIFEST_FILE not in stored:
            raise StorageError(event.key, "it is gone, or another than was announced")

    def _forget(self, prefix: str) -> None:
        """Deletes what no row names any more; what is left is rubbish, collected later."""
        try:
            storing(prefix, lambda: delete_below(self._objects, prefix), self._give_up)
        except StorageError as error:
            _LOG.warning("old checkpoint stays: %s", error)


def names_below(folder: Path) -> Iterator[str]:
    """Files in a folder by their paths within it, without hidden ones, which are unfinished."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            yield "/".join(parts)


def is_whole(folder: Path, stored: Mapping[str, StoredObject]) -> bool:
    """Whether stored files are those that the adapter card among them names.

    No where the folder is replaced at this very moment.
    """
    try:
        card, data = read_card(folder), (folder / CARD_FILE).read_bytes()
    except (OSError, UserError, ArtifactError):
        return False
    if CARD_FILE not in stored or stored[CARD_FILE].sha256 != hashlib.sha256(data).hexdigest():
        return False
    branches = zip(card.branches, card.sha256, strict=True)
    return all(name in stored and stored[name].sha256 == sha256 for name, sha256 in branches)


def delete_below(objects: ArtifactStore, prefix: str) -> None:
    """Deletes every object whose key begins with `prefix`."""
    for key in objects.list(prefix):
        objects.delete(key)


def _add(session: Session, lease: Lease, event: CheckpointSaved) -> list[str]:
    """Adds the row; returns the keys of those whose rows are forgotten instead."""
    before = results.checkpoints(session, lease.row_id)
    # The same update again: its state has changed since, by an evaluation.
    outdated = [
        row for row in before if (row.update, row.lease_token) == (event.update, lease.token)
    ]
    for row in outdated:
        results.forget_checkpoint(session, lease, row.id)
    results.add_checkpoint(session, lease, event)
    # By attempts first: one that found the newest away began further back.
    rows = sorted(
        results.checkpoints(session, lease.row_id),
        key=lambda row: (row.lease_token, row.update),
        reverse=True,
    )
    for row in rows[KEPT_CHECKPOINTS:]:
        results.forget_checkpoint(session, lease, row.id)
        outdated.append(row)
    return [row.object_key for row in outdated if row.object_key != event.key]
