"""The API of a service under test: a process on one port that is killed and started again."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.faults.harness import Label, Service
from tests.servers.forks import Fork
from tests.servers.processes import free_port, wait_until

PATIENCE_SECONDS: Final = 60.0
API: Final = ("-m", "api")
TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Unused: without one, each client reads all certificates of the system, which takes 60 ms."""


@dataclass
class Api:
    """`python -m api` on the rows of a service; what it says goes into `log`."""

    service: Service
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | Fork | None = None

    @property
    def log(self) -> Path:
        """What it says, over all its starts."""
        return self.service.folder / "api.log"

    @property
    def url(self) -> str:
        """The same after every start."""
        return f"http://127.0.0.1:{self.port}"

    def spawn(self, command: Sequence[str] = API) -> subprocess.Popen[bytes] | Fork:
        """Starts it without waiting for an answer."""
        secret = self.service.settings.secret_key
        assert secret is not None
        variables = {
            "SHORTFT_PORT": str(self.port),
            "SHORTFT_SECRET_KEY": secret.get_secret_value(),
            "SHORTFT_REQUESTS_PER_MINUTE": "1000000",
            "SHORTFT_MOST_STREAMS": "1000",
            "SHORTFT_OFFLINE": "1",
        }
        env = self.service.environment() | variables | self.service.extra_env
        self.process = self.service.launch(command, env, self.log)
        return self.process

    def start(self, command: Sequence[str] = API) -> None:
        """Returns when it answers."""
        process = self.spawn(command)
        wait_until(lambda: self._answers(process), PATIENCE_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=30)

    def wait(self, seconds: float = 30.0) -> int:
        """The exit code."""
        assert self.process is not None
        return self.process.wait(timeout=seconds)

    def terminate(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        self.process.terminate()

    def client(self) -> httpx2.Client:
        """A client that waits as long as a slow machine needs."""
        return httpx2.Client(base_url=self.url, timeout=PATIENCE_SECONDS, verify=TLS)

    def post(
        self, updates: int, labels: Mapping[str, Label], key: str | None = None
    ) -> httpx2.Response:
        """What it answers to a new job for the contract trainer."""
        headers = {} if key is None else {"Idempotency-Key": key}
        texts = {name: str(value) for name, value in labels.items()}
        spec: dict[str, Any] = {
            "base_model": {"name": "shapes"},
            "method": {"type": "draft_k", "updates": updates},
            "rewards": [{"name": "symmetry"}],
            "prompts": {"name": "shapes-train"},
            "metadata": {"journal": str(self.service.journal), **texts},
        }
        with self.client() as client:
            return client.post("/jobs", json=spec, headers=headers)

    def create(self, updates: int, **labels: Label) -> str:
        """The id of a new job."""
        answer = self.post(updates, labels)
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def figure(self, name: str) -> float:
        """A value of `/metrics`."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        [value] = [line.split()[1] for line in lines if line.split()[0] == name]
        return float(value)

    def _answers(self, process: subprocess.Popen[bytes] | Fork) -> bool:
        assert process.poll() is None, self.log.read_text()
        try:
            return httpx2.get(f"{self.url}/healthz", verify=TLS).status_code == 200
        except httpx2.TransportError:
            return False


@contextmanager
def served(service: Service) -> Iterator[Api]:
    """A running API, killed when the block ends."""
    api = Api(service)
    try:
        api.start()
        yield api
    finally:
        api.kill()
