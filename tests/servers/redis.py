"""A real Redis server that a test may kill, freeze and start again."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.servers.processes import ends_with_parent, free_port, wait_until


class RedisServer:
    """A server with a password on a port of its own; what it keeps lies in `folder`."""

    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self.port = free_port()
        self._password = secrets.token_hex(8)
        self._folder = folder
        self._is_durable = is_durable
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `SHORTFT_REDIS_URL` would be."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers; after `kill` it is the same server again."""
        self._folder.mkdir(parents=True, exist_ok=True)
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "requirepass": self._password,
            "appendonly": "yes" if self._is_durable else "no",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = [*ends_with_parent("KILL"), _binary(), *words]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers)

    def kill(self) -> None:
        """Ends it at once: what is not on disk is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None

    def freeze(self) -> None:
        """It accepts connections, and never answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It answers again."""
        self._signal(signal.SIGCONT)

    def client(self) -> Redis:
        """A connection of the test's own, to be closed by it."""
        return Redis.from_url(self.url)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it is not running"
        self._process.send_signal(number)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except RedisConnectionError:
                return False


def _binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("Redis is not installed")
    return found


@pytest.fixture
def redis_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A running server; `indirect` parametrization with True for one that keeps what it is told."""
    server = RedisServer(tmp_path / "redis", is_durable=getattr(request, "param", False))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of a running server, with its password."""
    return redis_server.url
