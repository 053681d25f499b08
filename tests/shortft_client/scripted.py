"""A real HTTP server that answers what a test tells it to, and cuts connections when told so."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from shortft_client import Client, Retries

QUICK: Final = Retries(most=3, first_seconds=0.01, longest_seconds=0.02)
CUT: Final = b"\0cut"
"""A chunk at which the connection is reset."""


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Scripted:
    """An answer: its chunks are sent one by one."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: tuple[bytes, ...] = ()
    length: int | None = None
    """Promised length; that of the chunks by default. -1 for none: the connection is closed."""
    pause_seconds: float = 0.0
    """Before each chunk."""


Script = Callable[[Seen], Scripted]


def answer(content: Any, status: int = 200, **headers: str) -> Scripted:
    """A JSON answer; `_` in the names of headers is `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scripted(
        status, {"Content-Type": "application/json", **named}, (json.dumps(content).encode(),)
    )


def problem(status: int, code: str, **more: Any) -> Scripted:
    """A refusal."""
    return answer({"status": status, "code": code, "detail": f"it is {code}", **more}, status)


def cut() -> Scripted:
    """No answer: the connection is reset."""
    return Scripted(chunks=(CUT,))


class ScriptedServer:
    """Where it listens, and what came."""

    def __init__(self, script: Script) -> None:
        self.seen: list[Seen] = []
        self._script = script
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                outer._handle(self)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Keeps quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        request = Seen(handler.command, handler.path, handler.headers, body)
        with self._lock:
            self.seen.append(request)
            planned = self._script(request)
        _send(handler, planned)


def _send(handler: BaseHTTPRequestHandler, planned: Scripted) -> None:
    if planned.chunks[:1] == (CUT,):
        _reset(handler)
        return
    handler.send_response(planned.status)
    for name, value in planned.headers.items():
        handler.send_header(name, value)
    if planned.length == -1:
        handler.send_header("Connection", "close")
        handler.close_connection = True
    else:
        length = planned.length or sum(map(len, planned.chunks))
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    for chunk in planned.chunks:
        time.sleep(planned.pause_seconds)
        if chunk == CUT:
            _reset(handler)
            return
        handler.wfile.write(chunk)
        handler.wfile.flush()


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(script: Script) -> Iterator[ScriptedServer]:
    """A server that runs while the block does."""
    server = ScriptedServer(script)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def asking(script: Script, **options: Any) -> Iterator[tuple[Client, list[Seen]]]:
    """A client of such a server, and what it has sent."""
    with serving(script) as server:
        client = Client(server.address, **{"retries": QUICK, **options})
        with client:
            yield client, server.seen


def in_turn(*answers: Scripted) -> Script:
    """A script that gives these answers one after the other; the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if left[1:] else left[0]
