"""The service as a process of its own, with real sockets and signals; and commands without one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import pytest
from pydantic import SecretStr
from typer import Typer
from typer.testing import CliRunner, Result

from shortft_core.cli import main
from store.settings import StoreSettings, store_settings
from tests.servers.processes import ends_with_parent, free_port, wait_until

PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Server:
    """A running `python -m api`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def client(self) -> httpx2.Client:
        """A client that waits as long as a slow machine needs."""
        return httpx2.Client(base_url=self.url, timeout=PATIENCE_SECONDS)


def environment(stack: StoreSettings, **more: str) -> dict[str, str]:
    """What a process needs to find the rows of a test."""
    given = {
        "HOME": str(stack.data_dir),
        "PATH": "/usr/bin:/bin",
        "SHORTFT_DATA_DIR": str(stack.data_dir),
        "SHORTFT_OFFLINE": "1",
    }
    secrets = {
        "SHORTFT_SECRET_KEY": stack.secret_key,
        "SHORTFT_DATABASE_URL": stack.database_url,
        "SHORTFT_REDIS_URL": stack.redis_url,
    }
    shown = {name: _shown(secret) for name, secret in secrets.items() if secret is not None}
    return {**given, **shown, **more}


def run(stack: StoreSettings, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What `python -m api` with these arguments prints and returns."""
    return subprocess.run(
        [sys.executable, "-m", "api", *arguments],
        env=environment(stack, **more),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def invoke(app: Typer, *arguments: str, env: Mapping[str, str]) -> Result:
    """What a command does in this process, with these variables beside its own."""
    store_settings.cache_clear()
    done = CliRunner(env=env).invoke(app, arguments)
    store_settings.cache_clear()
    return done


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """Why `shortft` with these arguments refuses, on one line."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer puts its own there
    monkeypatch.setattr(sys, "argv", ["shortft", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@contextmanager
def serving(stack: StoreSettings, **more: str) -> Iterator[Server]:
    """A server that answers, until the block ends."""
    port = free_port()
    log = stack.data_dir / f"api-{port}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*ends_with_parent("KILL"), sys.executable, "-m", "api"],
            env=environment(stack, SHORTFT_PORT=str(port), **more),
            stdout=file,
            stderr=file,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        with server.client() as asking:  # one for all questions: making it is most of the work
            wait_until(lambda: _answers(server, asking), PATIENCE_SECONDS)
        yield server
    finally:
        process.kill()
        process.wait()


def _answers(server: Server, asking: httpx2.Client) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    try:
        return asking.get("/problems/gone").status_code == 200
    except httpx2.TransportError:
        return False


def _shown(secret: SecretStr) -> str:
    return secret.get_secret_value()
