from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import ChannelError

from store import filesystem_transport
from tests.servers.messages import QUEUE, connect

ROOT = Path(__file__).parents[2]
HELPER = [sys.executable, "-m", "tests.servers.messages"]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with connect(tmp_path) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mq"


def _messages(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.msg"))


def _put(connection: Connection, *payloads: str, name: str = QUEUE) -> None:
    with connection.SimpleQueue(name) as queue:
        for payload in payloads:
            queue.put(payload)


def _get_all(connection: Connection, name: str = QUEUE) -> list[str]:
    found: list[str] = []
    with connection.SimpleQueue(name) as queue:
        while True:
            try:
                message = queue.get(block=False)
            except Empty:
                return found
            message.ack()
            found.append(message.payload)


def _spawn(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*HELPER, str(folder), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_many_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    readers = [_spawn(tmp_path) for _ in range(2)]
    writers = [_spawn(tmp_path, name, "200") for name in "ab"]
    (tmp_path / "mq").mkdir(exist_ok=True)
    for number in range(3):
        (tmp_path / "mq" / f"{number:020d}_torn.{QUEUE}.msg").write_bytes(b'{"body": "W1td')
    printed = [process.communicate(timeout=60)[0].split() for process in (*readers, *writers)]
    assert [process.returncode for process in (*readers, *writers)] == [0] * 4
    assert sorted(printed[0] + printed[1]) == sorted(
        f"{name}-{n}" for name in "ab" for n in range(200)
    )
    assert _messages(tmp_path / "mq") == []
    assert [path for path in (tmp_path / "mq").iterdir() if path.name.startswith(".")] == []


def test_messages_come_in_their_order_and_from_their_queue(connection: Connection) -> None:
    _put(connection, "a", "b", "c")
    _put(connection, "x", name="other")
    # Ends like the name of the first queue.
    _put(connection, "y", name=f"other.{QUEUE}")
    assert _get_all(connection) == ["a", "b", "c"]
    assert _get_all(connection) == []
    assert _get_all(connection, "other") == ["x"]
    assert _get_all(connection, f"other.{QUEUE}") == ["y"]


def test_a_message_survives_the_processes(tmp_path: Path) -> None:
    with connect(tmp_path) as first:
        _put(first, "a")
    with connect(tmp_path) as second:
        assert _get_all(second) == ["a"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"properties": {}}', b'"text"']
)
def test_garbage_is_dropped_and_what_is_behind_it_is_read(
    connection: Connection, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / f"0_garbage.{QUEUE}.msg").write_bytes(content)
    (folder / "no message at all").write_bytes(content)
    _put(connection, "a")
    assert _get_all(connection) == ["a"]
    assert _messages(folder) == []
    assert "it is no message" in caplog.text


def test_a_file_without_a_message_cannot_be_seen(
    connection: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that dies half way leaves a hidden file; it goes when it is old."""

    def die(self: Path, *_: Any) -> None:
        raise OSError("the disk is full")

    _put(connection, "a")
    assert _get_all(connection) == ["a"]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", die)
        with pytest.raises(ChannelError, match="the disk is full"):
            _put(connection, "a")
    (hidden,) = (path for path in folder.iterdir() if path.name.startswith(".new-"))
    assert _get_all(connection) == []
    _put(connection, "b")
    assert hidden.exists()
    monkeypatch.setattr(filesystem_transport.Channel, "_seconds", lambda _: -1.0)
    _put(connection, "c")
    assert not hidden.exists()


def test_old_messages_are_dropped_by_readers_and_by_writers(
    connection: Connection, folder: Path
) -> None:
    _put(connection, "old", "older")
    for path in _messages(folder):
        stamp, rest = path.name.split("_", 1)
        path.rename(folder / f"{int(stamp) - 61 * 10**9:020d}_{rest}")
    first = _messages(folder)[0]
    content, name = first.read_bytes(), first.name
    assert _get_all(connection) == []
    assert _messages(folder) == []
    (folder / name).write_bytes(content)
    _put(connection, "new")
    assert name not in {path.name for path in _messages(folder)}
    assert _get_all(connection) == ["new"]


def test_a_purge_takes_one_queue(connection: Connection) -> None:
    _put(connection, "a", "b")
    _put(connection, "x", name="other")
    with connection.SimpleQueue(QUEUE) as queue:
        assert queue.qsize() == 2
        assert queue.clear() == 2
        assert queue.qsize() == 0
    assert _get_all(connection, "other") == ["x"]


def test_a_fanout_reaches_every_bound_queue_until_it_is_deleted(
    connection: Connection, folder: Path
) -> None:
    exchange = Exchange("news", type="fanout")
    channel = connection.channel()
    bound = [Queue(name, exchange)(channel) for name in ("one", "two")]
    for queue in (*bound, *bound):
        queue.declare()
    with connection.Producer(channel, exchange=exchange) as producer:
        producer.publish("hello")
        assert (_get_all(connection, "one"), _get_all(connection, "two")) == (["hello"], ["hello"])
        bound[0].delete()
        producer.publish("again")
    assert _get_all(connection, "two") == ["again"]
    assert not list(folder.glob("*.one.msg"))


def test_the_folder_is_looked_at_five_times_a_second(connection: Connection) -> None:
    connection.connect()
    assert connection.transport.polling_interval == pytest.approx(0.2)
