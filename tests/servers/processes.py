"""What the servers of tests share: a free port, and an end that outlives no test."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def ends_with_parent(signal_name: str) -> list[str | Path]:
    """Words before a command: the kernel signals it when this process is gone, even by SIGKILL."""
    setpriv = shutil.which("setpriv")
    return [setpriv, f"--pdeathsig={signal_name}"] if setpriv else []


def wait_until(is_ready: Callable[[], bool], seconds: float = 60.0) -> None:
    """Returns when `is_ready` says so; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not is_ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready after {seconds:g} s")
        time.sleep(0.02)
