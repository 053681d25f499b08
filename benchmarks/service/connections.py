"""Kept HTTP/1.1 connections that cost a caller little: what is measured is the service.

A full client spends more of a core on a request than the service does on its answer, so that on two
cores its own lag would be measured. This one sends prepared bytes and reads what has a length.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"
_IDLE_SECONDS: Final = 60.0
"""A connection that rested for longer is not used again: the service may be closing it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body."""

    status: int
    body: bytes


@dataclass(eq=False, slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_at: float


@dataclass(eq=False, slots=True)
class Connections:
    """As many connections to one server as there are requests at a time."""

    host: str
    port: int
    _free: list[_Connection] = field(default_factory=list)

    def prepared(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The bytes of a request."""
        body = b"" if content is None else json.dumps(dict(content)).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        if content is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + _END + body

    async def send(self, request: bytes) -> Answer:
        """The answer to a prepared request; raises OSError or EOFError for a broken connection."""
        connection = await self._taken()
        try:
            connection.writer.write(request)
            answer = await _answer(connection.reader)
        except BaseException:
            connection.writer.close()
            raise
        connection.used_at = asyncio.get_running_loop().time()
        self._free.append(connection)
        return answer

    def close(self) -> None:
        """Ends the connections that rest."""
        while self._free:
            self._free.pop().writer.close()

    async def _taken(self) -> _Connection:
        now = asyncio.get_running_loop().time()
        while self._free:
            # The one that rested least, so that no more are kept than are needed.
            connection = self._free.pop()
            if now - connection.used_at < _IDLE_SECONDS and not connection.reader.at_eof():
                return connection
            connection.writer.close()
        return _Connection(*await asyncio.open_connection(self.host, self.port), used_at=now)


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(_END)
    status = int(head.split(b" ", 2)[1])
    at = head.lower().find(_LENGTH)
    if at < 0:
        raise EOFError(f"an answer {status} without a length")
    length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
    return Answer(status, await reader.readexactly(length))
