"""A file that arrives whole or not at all: resumed where it was cut off, verified at its end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx2

from shortft_client.answers import Artifact
from shortft_client.call import path
from shortft_client.retries import Outcome, Retries
from shortft_core.errors import ArtifactError

_WHOLE: Final = 200
_PART: Final = 206


class Download:
    """An artifact on its way to a file; what has come lies beside it until it is verified."""

    def __init__(self, job_id: str, artifact: Artifact, target: Path) -> None:
        self.path = path("jobs", job_id, "artifacts", artifact.id, "content")
        self.target = target
        self._artifact = artifact
        self._part = target.with_name(f"{target.name}.{artifact.sha256[:16]}.part")
        self._failures = 0
        target.parent.mkdir(parents=True, exist_ok=True)

    @property
    def received_bytes(self) -> int:
        """How much has come so far, in all attempts."""
        return self._part.stat().st_size if self._part.exists() else 0

    @property
    def is_complete(self) -> bool:
        """Whether no byte is missing."""
        return self.received_bytes >= self._artifact.size_bytes

    def headers(self) -> Mapping[str, str]:
        """Asks for what is missing, or for everything if the bytes are others by now."""
        # Compressed bytes cannot be counted.
        plain = {"Accept": "*/*", "Accept-Encoding": "identity"}
        start = self.received_bytes
        if not start:
            return plain
        return {**plain, "Range": f"bytes={start}-", "If-Range": f'"{self._artifact.sha256}"'}

    def begin(self, response: httpx2.Response) -> bool:
        """Whether bytes follow; forgets what has come if the answer starts afresh."""
        if response.status_code == _WHOLE:
            self._part.unlink(missing_ok=True)
        return response.status_code in {_WHOLE, _PART}

    def add(self, chunk: bytes) -> None:
        """Keeps what has come."""
        self._failures = 0
        with self._part.open("ab") as file:
            file.write(chunk)

    def pause_seconds(self, outcome: Outcome, retries: Retries) -> float | None:
        """The wait before the next attempt; None to give up."""
        self._failures += 1
        return retries.pause_seconds(self._failures, outcome)

    def finish(self) -> Path:
        """Gives the file its name; raises ArtifactError, and forgets it, if its hash is wrong."""
        self._part.touch()
        with self._part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self._artifact.sha256:
            self._part.unlink()
            name = self._artifact.filename
            raise ArtifactError(f"{name} has sha256 {found}, not {self._artifact.sha256}")
        return self._part.replace(self.target)
