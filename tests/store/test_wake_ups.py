"""A real Celery worker, woken through a real broker."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from store.broker import Queue
from store.doorbell import open_doorbell
from store.settings import StoreSettings
from tests.servers.processes import wait_until

if TYPE_CHECKING:
    from tests.servers.redis import RedisServer

ROOT = Path(__file__).parents[2]


class Served:
    """The worker, and what it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.woken = 0
        self.log: list[str] = []
        self._threads = [
            threading.Thread(target=self._count), threading.Thread(target=self._read_log)
        ]  # fmt: skip
        for thread in self._threads:
            thread.start()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "".join(self.log)
        return any(" ready." in line for line in self.log)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code

    def _count(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.woken += line == "woken\n"

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(iter(self.process.stderr.readline, ""))


@pytest.fixture(autouse=True)
def environment(stack: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker's process inherits."""
    monkeypatch.setenv("SHORTFT_DATA_DIR", str(stack.data_dir))
    if (address := stack.redis_address()) is not None:
        monkeypatch.setenv("SHORTFT_REDIS_URL", address)


@contextmanager
def _worker(queue: Queue) -> Iterator[Served]:
    command = [sys.executable, "-m", "tests.servers.wakes", str(queue)]
    served = Served(
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    try:
        wait_until(served.is_ready)
        yield served
    finally:
        code = served.stop()
    assert code == 0


def test_a_worker_is_woken_by_its_own_queue_alone(stack: StoreSettings) -> None:
    bell = open_doorbell(stack, role="api")
    # A wake-up from before the worker started.
    bell.ring(Queue.GENERATE)
    wait_until(lambda: bell.published == 1)
    if stack.redis_address() is None:
        for number, content in enumerate((b"", b"{", b"[]", b'{"body": "?"}')):
            garbage = stack.message_folder() / f"{number:020d}_garbage.generate.msg"
            garbage.write_bytes(content)
    with _worker(Queue.GENERATE) as served:
        wait_until(lambda: served.woken == 1, seconds=20)
        for queue in (Queue.TRAIN, Queue.DEFAULT, Queue.GENERATE):
            bell.ring(queue)
        wait_until(lambda: served.woken == 2, seconds=20)
        wait_until(lambda: bell.published == 4)
    assert served.woken == 2
    bell.close()


@pytest.mark.parametrize("stack", ["postgresql"], indirect=True)
def test_a_worker_comes_back_after_redis_did(
    stack: StoreSettings, redis_server: RedisServer
) -> None:
    bell = open_doorbell(stack, role="api")
    with _worker(Queue.TRAIN) as served:
        bell.ring(Queue.TRAIN)
        wait_until(lambda: served.woken == 1, seconds=20)
        redis_server.kill()
        redis_server.start()

        def is_woken_again() -> bool:
            bell.ring(Queue.TRAIN)
            return served.woken > 1

        wait_until(is_woken_again)
    bell.close()
