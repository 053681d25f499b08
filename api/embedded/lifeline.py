"""`python -m api.embedded.lifeline MODULE ARGUMENTS`: a module that ends when its parent does.

Standard input is a pipe from the parent: the system closes it however the parent ends, also by
SIGKILL. Then the module gets SIGTERM, and a while later the system's own alarm, which ends even a
process that no longer runs Python code.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from typing import Final

GRACE_SECONDS: Final = 90
"""How long a child may take to save its work; a worker takes a minute at most."""


def main() -> None:
    """Runs the module in this process, under its own name."""
    threading.Thread(target=_watch, name="lifeline", daemon=True).start()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _watch() -> None:
    """Ends when the parent does; nobody writes into the pipe."""
    os.read(sys.stdin.fileno(), 1)
    signal.alarm(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
