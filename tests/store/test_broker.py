from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from shortft_core.errors import UserError
from store import broker
from store.broker import Queue, celery_app
from store.settings import StoreSettings


def test_without_redis_messages_are_files(tmp_path: Path) -> None:
    app = celery_app(StoreSettings(data_dir=tmp_path), role="api")
    assert app.conf.worker_disable_prefetch is False
    with app.connection_for_write() as connection:
        connection.connect()
        assert type(connection.transport).__module__ == "store.filesystem_transport"
    assert (tmp_path / "mq").is_dir()
    app.close()


@pytest.mark.parametrize(("role", "seconds"), [("api", (1, 1)), ("worker", (5, 3))])
def test_redis_is_waited_for_briefly(
    tmp_path: Path, role: broker.Role, seconds: tuple[int, int]
) -> None:
    url = "redis://:secret@127.0.0.1:6379/0"
    app = celery_app(StoreSettings(data_dir=tmp_path, redis_url=SecretStr(url)), role=role)
    options = app.conf.broker_transport_options
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == seconds
    assert (options["max_retries"], app.conf.task_publish_retry_policy) == (0, {"max_retries": 0})
    assert app.conf.broker_url == url
    assert app.conf.worker_disable_prefetch is True
    assert not (tmp_path / "mq").exists()
    app.close()


def test_leases_repeat_work_and_the_broker_never_does(tmp_path: Path) -> None:
    app = celery_app(StoreSettings(data_dir=tmp_path), role="worker")
    conf = app.conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost) == (False, False)
    assert conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert conf.worker_enable_prefetch_count_reduction is False
    assert (conf.task_ignore_result, conf.result_backend) == (True, None)
    assert conf.accept_content == ["json"]
    assert (conf.worker_prefetch_multiplier, conf.broker_connection_max_retries) == (1, None)
    app.close()


def test_each_task_has_a_queue_with_a_key_of_its_own(tmp_path: Path) -> None:
    app = celery_app(StoreSettings(data_dir=tmp_path), role="worker")
    queues = app.amqp.queues
    assert {name: queue.routing_key for name, queue in queues.items()} == {
        "train": "train",
        "generate": "generate",
        "default": "default",
    }
    assert [queue.task for queue in Queue] == [
        "shortft.train", "shortft.generate", "shortft.default"
    ]  # fmt: skip
    for queue in Queue:
        assert app.amqp.router.route({}, queue.task)["queue"].name == queue
    app.close()


def test_a_folder_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "network_filesystem", lambda _: "nfs4")
    with pytest.raises(UserError, match="is on nfs4, where a rename may not be atomic"):
        celery_app(StoreSettings(data_dir=tmp_path), role="worker")
