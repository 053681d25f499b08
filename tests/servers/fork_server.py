"""A process that has imported the service and forks it: `python -m tests.servers.fork_server`.

Each line of its input is an order: the words behind `python`, the environment, the folder and the
file of the log. It answers with the process's number, and at its end with that and its exit code.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import sys
from typing import Any, Final

PRELOADED: Final = (
    *("api.app", "api.commands", "api.logs", "api.server"),
    *("worker.app", "worker.chores", "worker.process", "worker.train.supervisor"),
    *("celery.app.control", "celery.apps.worker", "celery.bin.worker", "celery.concurrency.thread"),
    *("celery.worker.consumer", "kombu.transport.filesystem", "kombu.transport.redis", "redis"),
    *("psycopg", "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite"),
    *("uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"),
    *("alembic.command", "pytest"),
)
"""What takes a start so long; none of it reads the environment of its process."""
_SET_DEATH_SIGNAL: Final = 1
Order = dict[str, Any]


def serve() -> Order | None:
    """Forks until its input ends; in each new process, returns what that is to be."""
    ends: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in ends:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    pid, status = os.waitpid(ends.pop(key.fd), 0)
                    _say(pid, os.waitstatus_to_exitcode(status))
                    continue
                line = sys.stdin.readline()
                if not line:
                    return None
                pid = os.fork()
                if not pid:
                    order: Order = json.loads(line)
                    return order
                end = os.pidfd_open(pid)
                ends[end] = pid
                selector.register(end, selectors.EVENT_READ)
                _say(pid)


def become(order: Order) -> None:
    """What `python` with these words would be, in a process of its own."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, 256)
    os.environ.clear()  # noqa: TID251 - it is a process's first breath
    os.environ.update(order["env"])  # noqa: TID251
    os.chdir(order["folder"])
    first, *rest = order["words"]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def _say(*numbers: int) -> None:
    sys.stdout.write(f"{json.dumps(numbers)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    # What all share is not looked at again in each of them.
    gc.freeze()
    if (found := serve()) is not None:
        become(found)
