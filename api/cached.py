"""An answer that many may ask for, and that is found out once in a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Cached(Generic[_T]):
    """Keeps what was found out for some seconds; of callers at once, one works and others wait."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._found: tuple[float, _T] | None = None

    def get(self, work: Callable[[], _T]) -> _T:
        """What `work` returned, now or within the last seconds."""
        with self._lock:
            if self._found is None or time.monotonic() - self._found[0] >= self._seconds:
                found = work()
                self._found = (time.monotonic(), found)
            return self._found[1]
