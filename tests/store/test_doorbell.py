from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from store import doorbell
from store.broker import Queue, celery_app
from store.doorbell import Doorbell, open_doorbell
from store.settings import StoreSettings
from tests.servers.processes import wait_until

if TYPE_CHECKING:
    from tests.servers.redis import RedisServer


@contextmanager
def _opened(settings: StoreSettings) -> Iterator[Doorbell]:
    bell = open_doorbell(settings, role="api")
    yield bell
    bell.close()


def _on(tmp_path: Path, server: RedisServer) -> StoreSettings:
    return StoreSettings(data_dir=tmp_path, redis_url=SecretStr(server.url))


def _ring(bell: Doorbell, queue: Queue = Queue.TRAIN) -> None:
    """Rings, and waits until it is known what became of it."""
    before = bell.published + bell.failures
    bell.ring(queue)
    wait_until(lambda: bell.published + bell.failures > before, seconds=30)


def _waiting(settings: StoreSettings) -> dict[Queue, int]:
    """Messages of each queue, as a worker would find them."""
    app = celery_app(settings, role="worker")
    with app.connection_for_read() as connection:
        channel = connection.channel()
        queues = {queue: app.amqp.queues[str(queue)](channel) for queue in Queue}
        found = {queue: bound.queue_declare().message_count for queue, bound in queues.items()}
    app.close()
    return found


def _names(settings: StoreSettings) -> list[str]:
    """Tasks of the messages in the training queue; takes them."""
    app = celery_app(settings, role="worker")
    names = []
    with app.connection_for_read() as connection:
        bound = app.amqp.queues[str(Queue.TRAIN)](connection.channel())
        while (message := bound.get(no_ack=True)) is not None:
            names.append(message.headers["task"])
            assert message.decode()[:2] == [[], {}]
            assert message.headers["expires"] is not None
    app.close()
    return names


def test_a_ring_is_a_message_without_content(stack: StoreSettings) -> None:
    with _opened(stack) as bell:
        for queue in Queue:
            _ring(bell, queue)
        assert (bell.published, bell.failures) == (3, 0)
    assert _waiting(stack) == dict.fromkeys(Queue, 1)
    assert _names(stack) == ["shortft.train"]


def test_rings_that_wait_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, goes_on = threading.Event(), threading.Event()
    publish: Callable[[Doorbell, Queue], None] = Doorbell._publish

    def slowly(bell: Doorbell, queue: Queue) -> None:
        entered.set()
        goes_on.wait(timeout=30)
        publish(bell, queue)

    monkeypatch.setattr(Doorbell, "_publish", slowly)
    settings = StoreSettings(data_dir=tmp_path)
    with _opened(settings) as bell:
        bell.ring(Queue.TRAIN)
        assert entered.wait(timeout=30)
        for _ in range(50):
            bell.ring(Queue.TRAIN)
            bell.ring(Queue.GENERATE)
        goes_on.set()
        wait_until(lambda: bell.published == 3)
    assert _waiting(settings) == {Queue.TRAIN: 2, Queue.GENERATE: 1, Queue.DEFAULT: 0}


def test_closing_sends_what_waits(tmp_path: Path) -> None:
    settings = StoreSettings(data_dir=tmp_path)
    with _opened(settings) as bell:
        bell.ring(Queue.TRAIN)
    assert (bell.published, _waiting(settings)[Queue.TRAIN]) == (1, 1)
    bell.ring(Queue.TRAIN)
    assert _waiting(settings)[Queue.TRAIN] == 1


def test_without_a_worker_messages_do_not_pile_up(
    stack: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "_MOST_WAITING", 3)
    with _opened(stack) as bell:
        for _ in range(6):
            _ring(bell)
        assert bell.failures == 0
    assert _waiting(stack)[Queue.TRAIN] == 3


def test_a_dead_redis_costs_the_caller_nothing_and_comes_back(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = _on(tmp_path, redis_server)
    with _opened(settings) as bell:
        _ring(bell)
        redis_server.kill()
        for _ in range(3):
            _ring(bell)
        assert (bell.published, bell.failures) == (1, 3)
        redis_server.start()
        _ring(bell)
        assert (bell.published, bell.failures) == (2, 3)


def test_redis_may_be_down_from_the_start_and_forget_everything(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    redis_server.kill()
    settings = _on(tmp_path, redis_server)
    with _opened(settings) as bell:
        _ring(bell)
        assert (bell.published, bell.failures) == (0, 1)
        redis_server.start()
        _ring(bell)
        with redis_server.client() as client:
            client.flushall()
        _ring(bell)
        assert (bell.published, bell.failures) == (2, 1)
    assert _names(settings) == ["shortft.train"]


def test_a_frozen_redis_is_given_up_and_ringing_does_not_wait(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with _opened(_on(tmp_path, redis_server)) as bell:
        _ring(bell)
        redis_server.freeze()
        for _ in range(10):
            bell.ring(Queue.TRAIN)
        # A publication waits for a second: whoever rings is back before the first is given up.
        assert bell.failures == 0
        wait_until(lambda: bell.failures > 0, seconds=30)
        redis_server.thaw()
        wait_until(lambda: _has_recovered(bell), seconds=30)


def _has_recovered(bell: Doorbell) -> bool:
    before = bell.published
    _ring(bell)
    return bell.published > before


def test_a_full_redis_is_counted(tmp_path: Path, redis_server: RedisServer) -> None:
    with _opened(_on(tmp_path, redis_server)) as bell:
        _ring(bell)
        with redis_server.client() as client:
            client.config_set("maxmemory", "1")
        _ring(bell)
        assert (bell.published, bell.failures) == (1, 1)


def test_a_full_disk_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with _opened(StoreSettings(data_dir=tmp_path)) as bell:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", no_space)
            _ring(bell)
        _ring(bell)
        assert (bell.published, bell.failures) == (1, 1)
