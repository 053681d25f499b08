"""Named bytes that outlive a process: checkpoints, samples, adapters."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from shortft_core.errors import ArtifactError

_KEY: Final = re.compile(r"[\w=+@-][\w.=+@-]*(/[\w=+@-][\w.=+@-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known about stored bytes without reading them."""

    size_bytes: int
    modified_at: datetime


def file_sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ArtifactStore(Protocol):
    """Bytes under keys such as `checkpoints/000050/state.safetensors`.

    A key is one or more names joined by `/`; a name has ASCII letters, digits and `_.=+@-`, and
    never begins with a dot. Every method raises ArtifactError for any other key.
    """

    def write(self, key: str, data: bytes) -> str:
        """Stores or replaces, and returns the sha256 in hexadecimal.

        Atomic and durable: readers see the old bytes or the new ones, never a part, and after the
        call the new ones survive a power cut.
        """
        ...

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """The bytes; raises ArtifactError when absent, or other than `sha256` says."""
        ...

    def exists(self, key: str) -> bool:
        """Whether `read` would find bytes."""
        ...

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Every key that begins with `prefix`, sorted; half-written bytes are never among them."""
        ...

    def delete(self, key: str) -> None:
        """Forgets the bytes; no error when there are none, so it may be repeated."""
        ...

    def stat(self, key: str) -> Stat:
        """Size and time of the last write; raises ArtifactError when absent."""
        ...

    def url(self, key: str) -> str:
        """An address from which this machine can read the bytes; raises when absent."""
        ...


class LocalStore:
    """An ArtifactStore in one folder; several processes may share it."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()

    def write(self, key: str, data: bytes) -> str:
        """Atomic by a temporary file, fsync, rename and fsync of the folders."""
        with atomic_file(self._path(key)) as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """Reads the whole file and compares its hash where one is given."""
        data = self._existing(key).read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactError(f"artifact {key} has changed: its sha256 is not {sha256}")
        return data

    def exists(self, key: str) -> bool:
        """Whether a file lies there."""
        return self._path(key).is_file()

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Walks the folder part of `prefix`."""
        folder = prefix.rpartition("/")[0]
        if folder and not _KEY.fullmatch(folder):
            return ()
        files = (path for path in (self.root / folder).rglob("*") if path.is_file())
        keys = (path.relative_to(self.root).as_posix() for path in files)
        return tuple(sorted(key for key in keys if key.startswith(prefix) and _KEY.fullmatch(key)))

    def delete(self, key: str) -> None:
        """Unlinks the file; its folders stay, since another process may be about to use them."""
        self._path(key).unlink(missing_ok=True)

    def stat(self, key: str) -> Stat:
        """From the file system."""
        found = self._existing(key).stat()
        return Stat(found.st_size, datetime.fromtimestamp(found.st_mtime, tz=UTC))

    def url(self, key: str) -> str:
        """A `file://` address."""
        return self._existing(key).as_uri()

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ArtifactError(f"{key!r} is not an artifact key")
        path = self.root / key
        if not path.resolve().is_relative_to(self.root):
            raise ArtifactError(f"artifact key {key!r} leads out of the store through a link")
        return path

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise ArtifactError(f"there is no artifact {key}")
        return path


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that replaces `path` when the block ends, or leaves it when the block raises.

    The temporary file is hidden beside `path`; data, then name, then folders are synchronised.
    """
    new_folders = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its mode 0600 would hide the file from other users that share the folder.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for folder in (path.parent, *(created.parent for created in new_folders)):
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Makes new names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
