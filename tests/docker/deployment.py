"""The compose file's own words, run as processes of this machine: no Docker, all the rest.

Folders of containers become folders below `root`, the network becomes loopback, and the images'
`python` is the one that runs the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.docker import compose
from tests.servers.processes import ends_with_parent

_FOLDERS: Final = ("/run/shortft", "/var/lib/shortft", "/var/cache/shortft", "/models", "/data")
_ENTRYPOINT: Final = '#!/bin/sh\nexec "$@"\n'
"""Stands for the one of the Redis image, which becomes another user and runs its words."""


@dataclass
class Deployment:
    """Services of the compose file, started one by one and stopped together."""

    root: Path
    replaced: Mapping[str, str]
    """Words of the compose file -> what they are on this machine."""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._services = compose.services({"SHORTFT_OFFLINE": "1"})
        (self.root / "bin").mkdir(parents=True)
        script = self.root / "bin" / "docker-entrypoint.sh"
        script.write_text(_ENTRYPOINT)
        script.chmod(0o755)
        for service in self._services.values():
            for target in compose.targets(service):
                (self.root / target[1:]).mkdir(parents=True, exist_ok=True)

    def run(self, name: str, *more: str) -> str:
        """What a service that ends by itself prints; it must succeed."""
        done = subprocess.run(
            self._command(name, more),
            env=self._environment(name), capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stderr}"
        return done.stdout

    def start(self, name: str, *more: str) -> None:
        """Starts a service that stays."""
        command = [*ends_with_parent("KILL"), *self._command(name, more)]
        with self.log(name).open("wb") as log:
            self.running[name] = subprocess.Popen(
                command, env=self._environment(name), stdout=log, stderr=log
            )

    def is_healthy(self, name: str) -> bool:
        """Whether the service's own health check succeeds; raises if the service has ended."""
        ended = self.running[name].poll()
        assert ended is None, f"{name} ended with {ended}: {self.log(name).read_text()[-4000:]}"
        test = self._services[name]["healthcheck"]["test"][1:]
        done = subprocess.run(
            [self._here(word) for word in test],
            env=self._environment(name), capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode == 0

    def wait_until_healthy(self, name: str, seconds: float = 120.0) -> None:
        """Asks every second; raises TimeoutError with what the service has printed."""
        deadline = time.monotonic() + seconds
        while not self.is_healthy(name):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name}: {self.log(name).read_text()[-4000:]}")
            time.sleep(1.0)

    def log(self, name: str) -> Path:
        """What a service that stays has printed."""
        return self.root / f"{name}.log"

    def stop(self, *names: str) -> dict[str, int]:
        """Exit codes after SIGTERM, within the time that the compose file gives."""
        for name in names:
            self.running[name].terminate()
        return {
            name: self.running.pop(name).wait(
                timeout=int(self._services[name]["stop_grace_period"].removesuffix("s"))
            )
            for name in names
        }

    def kill(self) -> None:
        """Ends what still runs."""
        for process in self.running.values():
            process.kill()
            process.wait(timeout=30)

    def _command(self, name: str, more: tuple[str, ...]) -> list[str]:
        service: dict[str, Any] = self._services[name]
        words = [*service.get("entrypoint", ()), *service["command"]]
        return [*(self._here(word) for word in words), *more]

    def _environment(self, name: str) -> dict[str, str]:
        given = self._services[name].get("environment", {})
        own = {variable: self._here(str(value)) for variable, value in given.items() if value}
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"  # noqa: TID251
        return {"HOME": str(self.root), "PATH": path, "OMP_NUM_THREADS": "1", **own}

    def _here(self, word: str) -> str:
        for there, here in self.replaced.items():
            word = word.replace(there, here)
        if word == "python":
            return sys.executable
        for folder in _FOLDERS:
            if word.startswith(folder) or f" {folder}" in word or f"//{folder}" in word:
                return word.replace(folder, f"{self.root}{folder}")
        return word
