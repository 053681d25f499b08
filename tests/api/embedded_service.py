"""`shortft serve` as a process of its own, with quick times and a trainer without torch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from api.embedded.settings import environment
from tests.servers.processes import wait_until

COMMAND: Final = (sys.executable, "-m", "shortft_core.cli", "serve")
QUICK: Final[Mapping[str, str]] = {
    "SHORTFT_SWEEP_SECONDS": "0.5",
    "SHORTFT_HEARTBEAT_SECONDS": "1",
    "SHORTFT_LEASE_SECONDS": "10",
    "SHORTFT_BACKOFF_SECONDS": "0.2",
    "SHORTFT_CONTROL_SECONDS": "0.2",
    "SHORTFT_GENERATE_START": "with_request",
    "SHORTFT_TRAINER_COMMAND": json.dumps([sys.executable, "-m", "tests.trainers.contract"]),
}
_START_SECONDS: Final = 100.0
_STARTING: Final = re.compile(r"^(.+): starting \(process (\d+)\)$", re.MULTILINE)
_READY: Final = re.compile(r"^ready: (http://\S+), ", re.MULTILINE)


class EmbeddedService:
    """The process, and what it has said so far."""

    def __init__(self, folder: Path, *options: str, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.said = ""
        self.process = subprocess.Popen(
            [*COMMAND, "--data-dir", str(folder), "--until-input-ends", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(
                variables, defaults={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            ),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def address(self) -> str:
        """Where it answers, once it is ready."""
        wait_until(lambda: bool(_READY.search(self.said)) or self.has_ended, _START_SECONDS)
        found = _READY.search(self.said)
        assert found is not None, self.said
        return found[1]

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self.process.poll() is not None

    def pids(self, name: str) -> list[int]:
        """The processes of one child, the first start first."""
        return [int(pid) for child, pid in _STARTING.findall(self.said) if child == name]

    def end(self, number: signal.Signals) -> int:
        """Signals it, waits for its end, and returns its code."""
        self.process.send_signal(number)
        code = self.process.wait(_START_SECONDS)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
        self.process.stdout.close()


@contextmanager
def embedded(
    folder: Path, *options: str, variables: Mapping[str, str] | None = None
) -> Iterator[EmbeddedService]:
    """A service that is gone when the block ends, with all its processes."""
    service = EmbeddedService(folder, *options, variables=QUICK if variables is None else variables)
    try:
        yield service
    finally:
        if not service.has_ended:
            service.end(signal.SIGTERM)
        assert service.process.stdin is not None
        service.process.stdin.close()
        wait_until(lambda: not processes_of(folder))


def processes_of(folder: Path) -> dict[int, str]:
    """Living processes that were started for the folder: number -> command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            known = command + (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(folder).encode() in known:
            found[int(process.name)] = command.replace(b"\0", b" ").decode()
    return found


def contract_job(updates: int, **labels: str) -> dict[str, Any]:
    """A job for the trainer without torch."""
    return {
        "base_model": {"name": "shapes"},
        "method": {"type": "draft_k", "updates": updates},
        "rewards": [{"name": "symmetry"}],
        "prompts": {"inline": ["a red circle"]},
        "metadata": labels,
    }
