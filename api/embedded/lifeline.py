"""`python -m api.embedded.lifeline SECONDS LOG BYTES MODULE ARGUMENTS`: a module with a lifeline.

Standard input is a pipe from the parent: the system closes it however the parent ends, also by
SIGKILL. Then the module gets SIGTERM, and so many seconds later the system's own alarm, which ends
even a process that no longer runs Python code.

Its output goes into the file LOG. Beyond so many bytes it begins another: only the process itself
can do that without losing a line.
"""

from __future__ import annotations

import os
import runpy
import select
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 1.0
"""How often the log is measured."""
_OUTPUTS: Final = (1, 2)
"""Standard output and standard error, which native libraries write to as well."""


def main() -> None:
    """Runs the module in this process, under its own name."""
    stop_seconds, log, largest_bytes = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    threading.Thread(
        target=_watch, args=(stop_seconds, log, largest_bytes), name="lifeline", daemon=True
    ).start()
    sys.argv = sys.argv[4:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _watch(stop_seconds: int, log: Path, largest_bytes: int) -> None:
    """Ends when the parent does; nobody writes into the pipe."""
    has_ended = False
    while not has_ended:
        if os.fstat(_OUTPUTS[0]).st_size > largest_bytes:
            _begin(log)
        has_ended = bool(select.select([sys.stdin], [], [], _LOOK_SECONDS)[0])
    signal.alarm(stop_seconds)
    os.kill(os.getpid(), signal.SIGTERM)


def _begin(log: Path) -> None:
    """Puts the log aside and writes into a new one; lines of this moment are in the old one."""
    # On a full disk the old one goes on until the next look: nothing may end this thread.
    with suppress(OSError):
        if log.exists():
            log.replace(log.with_suffix(".old"))
        with log.open("ab") as file:
            for output in _OUTPUTS:
                os.dup2(file.fileno(), output)


if __name__ == "__main__":
    main()
