"""One process of the embedded service: started, watched, started again when it ends by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 30.0
_HOPELESS: Final = 3
"""Ends in a row without ever having been ready: starting again would not help."""
_LARGEST_LOG_BYTES: Final = 16 << 20
"""Then its process begins another; the one before it is kept."""
_TAIL_BYTES: Final = 2000


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a child runs."""

    name: str
    module: str
    arguments: tuple[str, ...]
    is_ready: Callable[[int], bool]
    """Whether the process with this number does its work."""


class Child:
    """A program's process, one after the other; `say` gets one line for each change.

    It has `stop_seconds` to end by itself when this process is gone.
    """

    def __init__(
        self,
        program: Program,
        env: Mapping[str, str],
        log: Path,
        say: Callable[[str], None],
        *,
        stop_seconds: int,
    ) -> None:
        self.program = program
        self.log = log
        self.is_ready = False
        self.failures = 0
        """Ends in a row before it was ready."""
        self._has_lived = False
        self._env = env
        self._say = say
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0

    @property
    def is_hopeless(self) -> bool:
        """Whether it cannot be started: one that has run before only waits for something."""
        return self.failures >= _HOPELESS and not self._has_lived

    def look(self) -> None:
        """Starts it where it does not run and its wait is over; notes what became of it."""
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self._start()
        elif (code := self._process.poll()) is not None:
            self._ended(self._process, code)
        elif not self.is_ready and self.program.is_ready(self._process.pid):
            self.is_ready = self._has_lived = True
            self.failures = 0
            self._say(f"{self.program.name}: ready")

    def terminate(self) -> None:
        """Asks it to save its work and to end."""
        if self._process is not None:
            self._process.terminate()

    def finish(self, deadline: float) -> None:
        """Waits for its end until then, and kills it after that."""
        if self._process is None:
            return
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._say(f"{self.program.name}: stopped ({_cause(code)})")
        self._close(self._process)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()

    def _start(self) -> None:
        bounds = [str(self._stop_seconds), str(self.log), str(_LARGEST_LOG_BYTES)]
        command = [sys.executable, "-m", "api.embedded.lifeline", *bounds, self.program.module]
        # In a session of its own: Ctrl-C in a terminal is the parent's to hear.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own modules
                [*command, *self.program.arguments],
                env=dict(self._env),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._say(f"{self.program.name}: starting (process {self._process.pid})")

    def _ended(self, process: subprocess.Popen[bytes], code: int) -> None:
        self._close(process)
        self.failures = 1 if self.is_ready else self.failures + 1
        self.is_ready = False
        wait = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** (self.failures - 1))
        self._start_at = time.monotonic() + wait
        self._say(f"{self.program.name}: ended ({_cause(code)}), starts again in {wait:g} s")

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        if process.stdin is not None:
            # It may have gone with bytes unread.
            with suppress(BrokenPipeError):
                process.stdin.close()


def _cause(code: int) -> str:
    return f"code {code}" if code >= 0 else signal.Signals(-code).name
