"""The outermost layer: ids of requests, sizes of bodies, and a last answer to what nobody caught.

It is plain ASGI, because the framework's own limit answers with plain text and outside of every
error handler.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem, unexpected
from api.problems import ProblemError

DEEPEST: Final = 64
"""Levels of nesting in a JSON body; a job specification has eight."""
_ACCESS: Final = logging.getLogger("api.access")
_REQUEST_ID: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_MEGABYTE: Final = 1_000_000
_ALWAYS: Final = {"X-Content-Type-Options": "nosniff"}
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""Of every answer that is no page: what a browser makes of it loads and does nothing."""


@dataclass(slots=True)
class _Answer:
    """What is known of the answer so far."""

    status: int = 0


class Gate:
    """Lets a request in with an id and a body of bounded size and depth; logs how it ended."""

    def __init__(self, app: ASGIApp, max_body_mb: float) -> None:
        self._app = app
        self._most_bytes = round(max_body_mb * _MEGABYTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves HTTP; everything else passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        answer, began = _Answer(), time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update({**scope["state"].get("headers", {}), **_ALWAYS})
                headers["X-Request-ID"] = request_id
                headers.setdefault("Content-Security-Policy", _POLICY)
            await send(message)

        try:
            await self._serve(scope, receive, send_with_id, answer)
        finally:
            _ACCESS.info(
                "%s %s %d",
                scope["method"],
                scope["path"],
                answer.status,
                extra={
                    "request_id": request_id,
                    "status": answer.status,
                    "duration_seconds": round(time.perf_counter() - began, 4),
                },
            )

    async def _serve(self, scope: Scope, receive: Receive, send: Send, answer: _Answer) -> None:
        try:
            checked = await self._checked(Headers(scope=scope), receive)
            await self._app(scope, checked, send)
        except (ProblemError, HTTPException) as refused:
            if answer.status:
                raise
            code = refused.code if isinstance(refused, ProblemError) else "payload_too_large"
            response = problem(scope, code, refused.detail, headers={"Connection": "close"})
            await response(scope, receive, send)
        except Exception as error:
            # The last place that can still answer; the cause is logged there.
            if answer.status:
                raise
            await unexpected(scope, error)(scope, receive, send)

    async def _checked(self, headers: Mapping[str, str], receive: Receive) -> Receive:
        """The body as it comes, counted; JSON is read first, because its depth has to be known."""
        self._refuse_declared(headers.get("content-length", "0"))
        counted = _counted(receive, self._most_bytes)
        if "json" not in headers.get("content-type", ""):
            return counted
        return await _read_json(counted)

    def _refuse_declared(self, length: str) -> None:
        if not (length.isascii() and length.isdigit()):
            raise ProblemError("malformed", "Content-Length is no number")
        if len(length) > len(str(self._most_bytes)) or int(length) > self._most_bytes:
            raise _too_large(self._most_bytes)


def _counted(receive: Receive, most_bytes: int) -> Receive:
    seen = 0

    async def receive_counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > most_bytes:
                raise _too_large(most_bytes)
        return message

    return receive_counted


async def _read_json(receive: Receive) -> Receive:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return _replay([message], receive)
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = b"".join(chunks)
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        await asyncio.to_thread(_refuse_deep, body)
    return _replay([{"type": "http.request", "body": body, "more_body": False}], receive)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return again


def _refuse_deep(body: bytes) -> None:
    depth = 0
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        depth += (first in b"[{") - (first in b"]}")
        if depth > DEEPEST:
            raise ProblemError("too_deep", f"the body has more than {DEEPEST} levels")


def _too_large(most_bytes: int) -> HTTPException:
    """Of the framework's kind: it takes any other for a body that cannot be parsed."""
    return HTTPException(413, f"a body may have {most_bytes} bytes")


def _request_id(given: str | None) -> str:
    """The caller's own id where it is harmless, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req_{uuid.uuid4().hex}"


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The id of a request that came through the gate."""
    found: str = scope["state"]["request_id"]
    return found
