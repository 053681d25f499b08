"""kombu's transport on files, made safe for several processes: nothing is seen before it is whole.

A message is written under a hidden name and renamed; who renames it again has taken it. What
cannot be read is dropped, because one broken file must not end a worker. Messages are wake-ups, so
none is synchronised to disk and old ones are dropped.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any, Final

from kombu.exceptions import ChannelError
from kombu.transport import filesystem, virtual

_LOG: Final = logging.getLogger(__name__)
_NAME: Final = re.compile(r"(\d{20})_[0-9a-f]{32}\.(.+)\.msg")
_SECONDS: Final = 60.0


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu carries no types
    """A channel whose files appear and vanish in one step."""

    def get_table(self, exchange: str) -> list[Any]:
        """The queues that are bound to an exchange; read without a lock, since it is replaced."""
        try:
            rows = json.loads(self._exchange_file(exchange).read_text(encoding="utf-8"))
            return [filesystem.exchange_queue_t(*row) for row in rows]
        except FileNotFoundError:
            return []

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        new = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self._change_table(exchange, lambda rows: rows if new in rows else [new, *rows])

    def _delete(
        self, queue: str, exchange: str, routing_key: str, pattern: str, *_: Any, **__: Any
    ) -> None:
        self._purge(queue)
        gone = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self._change_table(exchange, lambda rows: [row for row in rows if row != gone])

    def _change_table(self, exchange: str, change: Callable[[list[Any]], list[Any]]) -> None:
        file: Path = self._exchange_file(exchange)
        file.parent.mkdir(parents=True, exist_ok=True)
        with _reported(f"cannot change {file}"), _locked(file.with_suffix(".lock")):
            before = self.get_table(exchange)
            after = change(before)
            if after != before:
                _replace(file, json.dumps(after))

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        folder = Path(self.data_folder_out)
        file = folder / f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        with _reported(f"cannot write {file}"):
            self._drop_old(folder)
            _replace(file, json.dumps(payload))

    def _get(self, queue: str) -> dict[str, Any]:
        folder = Path(self.data_folder_in)
        for name in self._names(queue):
            payload = self._take(folder, name)
            if payload is not None:
                return payload
        raise Empty

    def _take(self, folder: Path, name: str) -> dict[str, Any] | None:
        """The message of a file that was there; None if another reader was first, or it is bad."""
        taken = folder / f".taken-{uuid.uuid4().hex}"
        try:
            (folder / name).rename(taken)
            content = taken.read_bytes()
            taken.unlink()
        except FileNotFoundError:
            return None
        if self._is_old(name):
            return None
        payload = _parse(content)
        if payload is None:
            _LOG.warning("dropped %s: it is no message", name)
        return payload

    def _purge(self, queue: str) -> int:
        names = self._names(queue)
        for name in names:
            (Path(self.data_folder_in) / name).unlink(missing_ok=True)
        return len(names)

    def _size(self, queue: str) -> int:
        return len(self._names(queue))

    def _names(self, queue: str) -> list[str]:
        """Files of the queue's messages, the oldest first."""
        names = (path.name for path in Path(self.data_folder_in).iterdir())
        return sorted(name for name in names if name.partition(".")[2] == f"{queue}.msg")

    def _drop_old(self, folder: Path) -> None:
        """Removes what nobody took in time, and what a process that died was writing or reading."""
        for path in folder.iterdir():
            if self._is_old(path.name) or self._is_forgotten(path):
                path.unlink(missing_ok=True)

    def _is_old(self, name: str) -> bool:
        found = _NAME.fullmatch(name)
        return found is not None and time.time() - int(found[1]) / 1e9 > self._seconds()

    def _is_forgotten(self, path: Path) -> bool:
        try:
            hidden = path.name.startswith(".") and path.is_file()
            return hidden and time.time() - path.stat().st_mtime > self._seconds()
        except FileNotFoundError:
            return False

    def _seconds(self) -> float:
        return float(self.transport_options.get("message_seconds", _SECONDS))


class Transport(filesystem.Transport):  # type: ignore[misc]  # kombu carries no types
    """What Celery is given by its path."""

    Channel = Channel

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        # Of this connection: a process may use several folders, and what is bound differs.
        self.state = virtual.BrokerState()

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """None: kombu would warn in every log that it takes some host instead."""
        return {}


def _parse(content: bytes) -> dict[str, Any] | None:
    """A message, or None for whatever lacks what kombu takes for granted."""
    try:
        payload = json.loads(content)
        # Without these the worker's loop would end, and the worker with it.
        payload["properties"]["delivery_tag"], payload["headers"], payload["body"]
    except (ValueError, TypeError, KeyError):
        return None
    return payload if isinstance(payload, dict) else None


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(f".new-{uuid.uuid4().hex}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _reported(problem: str) -> Iterator[None]:
    """A full disk is an error of the broker, as kombu and Celery know them."""
    try:
        yield
    except OSError as error:
        raise ChannelError(f"{problem}: {error}") from error
