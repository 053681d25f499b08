"""What keeps a trainer from outliving its right to work.

It hears renewals of its lease from its supervisor, and stops itself when they stay away: also when
the supervisor is frozen, the machine slept, or nobody is left at the other end.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from worker.protocol import FENCE_SHARE, Control, ExitCode, elapsed_seconds

_LOOK_SECONDS: Final = 0.2
_CHUNK_BYTES: Final = 1 << 16
_PR_SET_PDEATHSIG: Final = 1
_CODES: Final = {
    "stop": ExitCode.STOPPED,
    "cancel": ExitCode.RESTING,
    "pause": ExitCode.RESTING,
}


class Lifeline:
    """Listens to the supervisor; `ending` says how to end once the current update is saved."""

    def __init__(
        self,
        lease_seconds: float,
        renewed_at: float,
        *,
        hang_seconds: float | None = None,
        source: int = 0,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._lease_seconds = lease_seconds
        self._renewed_at = renewed_at
        self._hang_seconds = hang_seconds
        self._source = source
        self._leave = leave
        self._buffer = b""
        self._closed = False
        self.ending: ExitCode | None = None
        """None as long as the work may go on."""

    def start(self) -> None:
        """Begins to listen; SIGTERM is an order to stop, and SIGALRM ends a hung interpreter."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        die_with_parent()
        self._wind()
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def should_stop(self) -> bool:
        """Whether the work shall be saved and ended."""
        return self.ending is not None

    def look(self, timeout_seconds: float) -> None:
        """Hears what was said, waiting no longer than this, and checks the lease."""
        self._listen(timeout_seconds)
        age = elapsed_seconds() - self._renewed_at
        if age >= FENCE_SHARE * self._lease_seconds:
            self.ending = ExitCode.FENCED
        # Whoever claims the job next may begin now: what is not saved by now is lost.
        if age >= self._lease_seconds:
            self._leave(ExitCode.FENCED)

    def _watch(self) -> None:
        while True:
            self._wind()
            self.look(min(_LOOK_SECONDS, self._lease_seconds / 20))

    def _wind(self) -> None:
        # A library that hangs and holds the interpreter's lock lets no thread listen and no handler
        # run. Where the supervisor is gone too, nobody else would end it and free its device.
        if self._hang_seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, self._hang_seconds)

    def _listen(self, timeout_seconds: float) -> None:
        if self._closed:
            time.sleep(timeout_seconds)
            return
        readable, _, _ = select.select([self._source], [], [], timeout_seconds)
        if not readable:
            return
        chunk = os.read(self._source, _CHUNK_BYTES)
        if not chunk:
            self._closed = True
            self._end(ExitCode.STOPPED)
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            self._obey(Control.model_validate_json(line))

    def _obey(self, order: Control) -> None:
        if order.control == "ok":
            self._renewed_at = max(self._renewed_at, order.renewed_at)
        elif order.control == "lost":
            self._leave(ExitCode.FENCED)
        else:
            self._end(_CODES[order.control])

    def _end(self, code: ExitCode) -> None:
        self.ending = self.ending or code

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._end(ExitCode.STOPPED)


def die_with_parent() -> None:
    """Asks Linux for SIGTERM when the parent ends; elsewhere the end of the input has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
