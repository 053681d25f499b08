"""Processes of the service that are there at once: forked from one that has imported all of it."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.servers.processes import ends_with_parent
from worker.settings import child_environment

ROOT: Final = Path(__file__).parents[2]
_PATIENCE_SECONDS: Final = 60.0


class Fork:
    """A process as `subprocess.Popen` shows it; another one is its parent."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._ended = threading.Event()

    def end(self, code: int) -> None:
        """Its parent says that it has ended."""
        self._code = code
        self._ended.set()

    def poll(self) -> int | None:
        """The exit code, once there is one."""
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; raises TimeoutExpired."""
        self._ended.wait(timeout)
        if self._code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return self._code

    def send_signal(self, number: int) -> None:
        """Does nothing to one that has ended."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The parent of all; it ends with this process, and they with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [*ends_with_parent("KILL"), sys.executable, "-m", "tests.servers.fork_server"],
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._forks: dict[int, Fork] = {}
        self._born: SimpleQueue[Fork] = SimpleQueue()
        self._orders = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(
        self, words: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path
    ) -> Fork:
        """What `python` with these words would be; they begin with `-m` or with a file."""
        order = {"words": words, "env": dict(env), "folder": str(folder), "log": str(log)}
        pipe = self._process.stdin
        assert pipe is not None
        with self._orders:
            pipe.write(json.dumps(order).encode() + b"\n")
            pipe.flush()
            return self._born.get(timeout=_PATIENCE_SECONDS)

    def close(self) -> None:
        """Ends it, and whatever still runs."""
        self._process.communicate()

    def _listen(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        for line in pipe:
            pid, *codes = json.loads(line)
            if codes:
                self._forks.pop(pid).end(*codes)
            else:
                self._forks[pid] = Fork(pid)
                self._born.put(self._forks[pid])


@cache
def fork_server() -> ForkServer:
    """The one of this process, which starts when it is first asked for."""
    server = ForkServer()
    atexit.register(server.close)
    return server
