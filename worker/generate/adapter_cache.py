"""Adapter folders on this machine, by the hash of their card; the longest unused go first."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from shortft_core.adapter_card import CARD_FILE, read_card
from shortft_core.errors import ArtifactError
from shortft_core.spec.generation import ServedAdapter
from store.objects import ObjectStore, copy_to_file

DEFAULT_BYTES: Final = 8 << 30
"""Forty adapters of SD 1.5 with four branches of rank 64."""
IN_USE_SECONDS: Final = 3600.0
"""What was asked for within this time is kept, whatever its size: a child may be reading it."""


class AdapterCache:
    """What the card names, each file verified against it; workers of one machine share a folder."""

    def __init__(
        self, folder: Path, objects: ObjectStore, *, limit_bytes: int = DEFAULT_BYTES
    ) -> None:
        self._folder = folder
        self._objects = objects
        self._limit_bytes = limit_bytes

    def fetch(self, adapter: ServedAdapter) -> Path:
        """The local folder of an adapter.

        Raises ArtifactError for files that are absent or changed, and what the object store raises
        when it is away.
        """
        folder = self._folder / adapter.card_sha256
        try:
            os.utime(folder)
        except FileNotFoundError:
            self._download(adapter, folder)
        self._shrink()
        return folder

    def _download(self, adapter: ServedAdapter, folder: Path) -> None:
        part = self._folder / f".{uuid.uuid4().hex}.part"
        part.mkdir(parents=True)
        try:
            fetch(
                self._objects, f"{adapter.prefix}{CARD_FILE}", part / CARD_FILE, adapter.card_sha256
            )
            card = read_card(part)
            for name, sha256 in zip(card.branches, card.sha256, strict=True):
                if Path(name).name != name:
                    raise ArtifactError(f"{adapter.id} names a file outside of its folder")
                fetch(self._objects, f"{adapter.prefix}{name}", part / name, sha256)
            try:
                part.rename(folder)
            except OSError:
                # Another worker was faster: its folder holds the same bytes.
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _shrink(self) -> None:
        before = time.time() - IN_USE_SECONDS
        folders = []
        for path in self._folder.iterdir():
            # Another worker of this machine may delete it meanwhile, here and below.
            with suppress(FileNotFoundError):
                used_at = path.stat().st_mtime
                if not path.name.startswith("."):
                    folders.append((used_at, _size_bytes(path), path))
                elif used_at < before:
                    # Its worker was killed while it downloaded or deleted.
                    shutil.rmtree(path, ignore_errors=True)
        total = sum(size for _, size, _ in folders)
        for used_at, size, path in sorted(folders):
            if total <= self._limit_bytes or used_at >= before:
                return
            with suppress(FileNotFoundError):
                _delete(path)
            total -= size


def fetch(objects: ObjectStore, key: str, path: Path, sha256: str) -> None:
    """Copies an object into a file; raises ArtifactError if it is absent or was changed."""
    if copy_to_file(objects, key, path) != sha256:
        raise ArtifactError(f"{key} has changed: its sha256 is not {sha256}")


def _delete(folder: Path) -> None:
    # Renamed first: nobody finds half of a folder.
    rubbish = folder.with_name(f".{uuid.uuid4().hex}.old")
    folder.rename(rubbish)
    shutil.rmtree(rubbish, ignore_errors=True)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
