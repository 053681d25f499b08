"""The slots of a station: what one piece of work at a time may use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Slots(Generic[_T]):
    """Slots that are free or busy; any thread may take one."""

    def __init__(self, slots: Iterable[_T]) -> None:
        self._free: queue.SimpleQueue[_T] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._changed = threading.Condition()
        self._busy = 0

    @property
    def busy(self) -> int:
        """How many are taken."""
        return self._busy

    @contextmanager
    def taken(self) -> Iterator[_T | None]:
        """A free slot, which is given back when the block ends; None where all are busy."""
        try:
            slot = self._free.get_nowait()
        except queue.Empty:
            yield None
            return
        self._count(1)
        try:
            yield slot
        finally:
            # First: who waits for an idle station may close the slot.
            self._free.put(slot)
            self._count(-1)

    def wait_until_idle(self, timeout: float) -> int:
        """How many are still busy when all are free, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy == 0, timeout=timeout)
            return self._busy

    def _count(self, change: int) -> None:
        with self._changed:
            self._busy += change
            self._changed.notify_all()
