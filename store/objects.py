"""Stored bytes of the service: a folder of this machine, or a bucket behind fsspec.

A result reaches its key in one step: written under a temporary key, published, then named by a row.
What no row names is rubbish that may be deleted after a while.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol
from urllib.parse import unquote, urlsplit

from fsspec.core import url_to_fs

from shortft_core.artifacts import (
    ArtifactStore,
    LocalStore,
    Stat,
    atomic_file,
    file_sha256,
    sync_folder,
)
from shortft_core.errors import ArtifactError, UserError

_CHUNK_BYTES: Final = 1 << 20
_KEY: Final = re.compile(r"[\w=+@-][\w.=+@-]*(/[\w=+@-][\w.=+@-]*)*", re.ASCII)
_REMEDY: Final = "Give file:///absolute/folder or s3://bucket/prefix"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a row says of stored bytes."""

    key: str
    sha256: str
    size_bytes: int


class ObjectStore(ArtifactStore, Protocol):
    """An ArtifactStore that also takes files too large for memory, and publishes."""

    def write_file(self, key: str, source: Path) -> StoredObject:
        """Stores or replaces the content of a local file, as atomically as `write` does."""
        ...

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """The bytes as a stream; raises ArtifactError when absent."""
        ...

    def publish(self, temporary_key: str, key: str) -> None:
        """Moves bytes to where readers look; `key` holds all of them or what it held before.

        May be repeated after a crash. Raises ArtifactError when neither key holds anything.
        """
        ...


def open_objects(url: str) -> ObjectStore:
    """The store at `file:///folder` or at any bucket address that fsspec knows.

    Raises UserError for an address that is neither.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise UserError("storage_url", "it names no absolute folder", _REMEDY)
        return FolderStore(Path(unquote(parts.path)))
    if not parts.scheme:
        raise UserError("storage_url", "it has no scheme", _REMEDY)
    try:
        return BucketStore(url)
    except (ImportError, ValueError) as error:
        raise UserError("storage_url", f"{parts.scheme} is not available ({error})", _REMEDY) from (
            error
        )


class FolderStore(LocalStore):
    """An ObjectStore in a folder that several processes share."""

    def write_file(self, key: str, source: Path) -> StoredObject:
        """Copies through the core's atomic file, hashing on the way."""
        digest, size = hashlib.sha256(), 0
        with source.open("rb") as opened, atomic_file(self._path(key)) as file:
            while chunk := opened.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += file.write(chunk)
        return StoredObject(key, digest.hexdigest(), size)

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A file handle: the bytes stay readable even if the key is replaced meanwhile."""
        return self._existing(key).open("rb")

    def publish(self, temporary_key: str, key: str) -> None:
        """A rename, and fsync of both folders."""
        if not self.exists(temporary_key) and self.exists(key):
            return
        source, target = self._existing(temporary_key), self._path(key)
        missing = [folder for folder in target.parents if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        for folder in (target.parent, source.parent, *(new.parent for new in missing)):
            sync_folder(folder)


class BucketStore:
    """An ObjectStore in a bucket, where one PUT or one copy is atomic and durable by itself."""

    def __init__(self, url: str) -> None:
        # Without listings kept from before: another process may have written since.
        filesystem, root = url_to_fs(url, use_listings_cache=False)
        self._filesystem: Any = filesystem
        self._root = str(root).rstrip("/")

    def write(self, key: str, data: bytes) -> str:
        """One PUT."""
        self._filesystem.pipe_file(self._path(key), data)
        return hashlib.sha256(data).hexdigest()

    def write_file(self, key: str, source: Path) -> StoredObject:
        """One upload, in parts where the file is large; it appears when the last part is there."""
        sha256 = file_sha256(source)
        self._filesystem.put_file(str(source), self._path(key))
        return StoredObject(key, sha256, source.stat().st_size)

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """Reads everything and compares its hash where one is given."""
        with _named(key):
            data: bytes = self._filesystem.cat_file(self._path(key))
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactError(f"artifact {key} has changed: its sha256 is not {sha256}")
        return data

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """Reads ahead in blocks."""
        with _named(key):
            opened: BinaryIO = self._filesystem.open(self._path(key), "rb")
        with opened as file:
            yield file

    def exists(self, key: str) -> bool:
        """One HEAD; a bucket that does not answer raises, since it may hold the object."""
        # Not `isfile`: it takes every error for a no.
        try:
            return bool(self._filesystem.info(self._path(key))["type"] == "file")
        except FileNotFoundError:
            return False

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Lists the folder part of `prefix`."""
        folder, _, _ = prefix.rpartition("/")
        found = self._filesystem.find(f"{self._root}/{folder}".rstrip("/"))
        keys = (str(path).removeprefix(f"{self._root}/") for path in found)
        return tuple(sorted(key for key in keys if key.startswith(prefix) and _KEY.fullmatch(key)))

    def delete(self, key: str) -> None:
        """One HEAD and one DELETE."""
        if self.exists(key):
            self._filesystem.rm_file(self._path(key))

    def stat(self, key: str) -> Stat:
        """One HEAD."""
        with _named(key):
            size = int(self._filesystem.info(self._path(key))["size"])
            modified = self._filesystem.modified(self._path(key))
        return Stat(size, modified.astimezone(UTC))

    def url(self, key: str) -> str:
        """An address of the bucket, for clients with its credentials."""
        if not self.exists(key):
            raise ArtifactError(f"there is no artifact {key}")
        return str(self._filesystem.unstrip_protocol(self._path(key)))

    def publish(self, temporary_key: str, key: str) -> None:
        """A copy inside the bucket, then a delete."""
        if not self.exists(temporary_key) and self.exists(key):
            return
        with _named(temporary_key):
            self._filesystem.cp_file(self._path(temporary_key), self._path(key))
        self.delete(temporary_key)

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ArtifactError(f"{key!r} is not an artifact key")
        return f"{self._root}/{key}"


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no artifact {key}") from error


def copy_to_file(objects: ObjectStore, key: str, target: Path) -> str:
    """Copies an object into a file that a power loss does not empty; returns its sha256.

    Raises ArtifactError when absent.
    """
    digest = hashlib.sha256()
    with objects.open(key) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
