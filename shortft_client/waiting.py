"""How often to look whether something has ended: at once, then less and less often."""

from __future__ import annotations

import time
from typing import Final

from shortft_client.answers import Generation, Job
from shortft_client.errors import ClientError, NotInTimeError

_FIRST_SECONDS: Final = 0.2
_LONGEST_SECONDS: Final = 5.0
_GROWTH: Final = 1.5


class Patience:
    """A time that runs out, cut into pauses; without a time it never does."""

    def __init__(self, seconds: float | None) -> None:
        self._ends_at = None if seconds is None else time.monotonic() + seconds
        self._pause_seconds = _FIRST_SECONDS

    def left_seconds(self) -> float | None:
        """What is left; None for ever."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def pause_seconds(self) -> float | None:
        """The wait before the next look; None when time is over."""
        left = self.left_seconds()
        if left == 0.0:
            return None
        pause = self._pause_seconds
        self._pause_seconds = min(_LONGEST_SECONDS, pause * _GROWTH)
        return pause if left is None else min(pause, left)


class Waiting:
    """Looks at something until it has ended; a service that restarts meanwhile is waited for."""

    def __init__(self, timeout_seconds: float | None, patience_seconds: float) -> None:
        self._time = Patience(timeout_seconds)
        self._timeout_seconds = timeout_seconds or 0.0
        self._patience_seconds = patience_seconds
        self._heard_at = time.monotonic()

    def after(self, found: Job | Generation) -> float:
        """The wait after an answer; raises NotInTimeError when time is over."""
        self._heard_at = time.monotonic()
        pause = self._time.pause_seconds()
        if pause is None:
            raise NotInTimeError(found.id, found.status, self._timeout_seconds)
        return pause

    def after_silence(self, error: ClientError) -> float:
        """The wait after no answer; raises the error when time or patience is over."""
        pause = self._time.pause_seconds()
        if pause is None or time.monotonic() - self._heard_at > self._patience_seconds:
            raise error
        return pause
