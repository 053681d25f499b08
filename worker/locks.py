"""Locks between processes of one machine: files, which the system unlocks when a process dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_LOOK_SECONDS: Final = 0.1


def try_lock(path: Path) -> BinaryIO | None:
    """The locked file, which is unlocked when it is closed; None if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if _is_at(file, path):
            return file
        # Its last holder has removed it meanwhile: others lock a new file of this name.
        file.close()


def unlock(file: BinaryIO) -> None:
    """Removes a locked file and lets it go."""
    Path(file.name).unlink(missing_ok=True)
    file.close()


@contextmanager
def held(
    paths: Sequence[Path], *, give_up: Callable[[], bool], on_wait: Callable[[Path], None]
) -> Iterator[bool]:
    """Holds all of these locks, waiting for them in turn; yields False if `give_up` came first."""
    with ExitStack() as stack:
        for path in paths:
            file = _wait_for(path, give_up, on_wait)
            if file is None:
                yield False
                return
            stack.callback(unlock, file)
        yield True


def _wait_for(
    path: Path, give_up: Callable[[], bool], on_wait: Callable[[Path], None]
) -> BinaryIO | None:
    file = try_lock(path)
    if file is None:
        on_wait(path)
    while file is None and not give_up():
        time.sleep(_LOOK_SECONDS)
        file = try_lock(path)
    return file


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
