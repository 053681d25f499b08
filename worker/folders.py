"""Folders of workers of one machine: each lies beside a lock that says whether its worker lives."""

from __future__ import annotations

import shutil
from pathlib import Path

from worker import locks


class WorkerFolder:
    """A folder of this process alone, as long as it lives."""

    def __init__(self, path: Path) -> None:
        """Makes the folder, and deletes those beside it whose workers were killed."""
        self.path = path
        remove_dead_folders(path.parent)
        # Held by this object as long as this process lives.
        self._alive = locks.try_lock(_liveness(path))
        path.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Deletes the folder and its lock; a second call does nothing."""
        if self._alive is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            locks.unlock(self._alive)
            self._alive = None


def remove_dead_folders(parent: Path) -> None:
    """Deletes the folders of workers of this machine that are gone."""
    for folder in parent.glob("*/"):
        lock = locks.try_lock(_liveness(folder))
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            locks.unlock(lock)


def _liveness(folder: Path) -> Path:
    """The lock that a worker holds on its folder."""
    return folder.with_name(f"{folder.name}.lock")
