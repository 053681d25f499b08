"""The outermost layer: ids of requests, who asks, sizes of bodies, and a last answer to any fault.

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
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import admit
from api.errors import early, path_of
from api.problems import ProblemError
from api.urls import mount_version

DEEPEST: Final = 64
"""Levels of nesting in a JSON body; a job specification has eight."""
_ACCESS: Final = logging.getLogger("api.access")
_REQUEST_ID: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)
# It ends at the end of the body too, and gives nothing back: no body makes it start over.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(sorted({*range(256)} - {*b"[]{}"}))
_MEGABYTE: Final = 1_000_000
MOST_JSON_BYTES: Final = 4 * _MEGABYTE
"""Of a JSON body, which is read whole; more prompts than that come as a file."""
_ALWAYS: Final = {"X-Content-Type-Options": "nosniff"}
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""Of every answer that is no page: what a browser makes of it loads and does nothing."""


@dataclass(slots=True)
class _Answer:
    """What is known of the answer so far."""

    status: int = 0


class Gate:
    """Lets known callers in, with an id and a body of bounded size and depth; logs how it ended."""

    def __init__(self, app: ASGIApp, max_body_mb: float) -> None:
        self._app = app
        self._most_bytes = round(max_body_mb * _MEGABYTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves HTTP; everything else passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        mount_version(scope)
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
                path_of(scope),
                answer.status,
                extra={
                    "request_id": request_id,
                    "status": answer.status,
                    "duration_seconds": round(time.perf_counter() - began, 4),
                },
            )

    async def _serve(self, scope: Scope, receive: Receive, send: Send, answer: _Answer) -> None:
        try:
            await admit(Request(scope))
            checked = await self._checked(Headers(scope=scope), receive)
            await self._app(scope, checked, send)
        except Exception as error:
            # The last place that can still answer; the cause of a fault is logged there.
            if answer.status:
                raise
            response = await early(Request(scope), error)
            if _has_body(Headers(scope=scope)):
                response.headers["Connection"] = "close"
            await response(scope, receive, send)

    async def _checked(self, headers: Mapping[str, str], receive: Receive) -> Receive:
        """The body as it comes, counted; JSON is read first, because its depth has to be known."""
        is_json = "json" in headers.get("content-type", "").lower()
        most_bytes = min(self._most_bytes, MOST_JSON_BYTES) if is_json else self._most_bytes
        _refuse_declared(headers.get("content-length", "0"), most_bytes)
        counted = _counted(receive, most_bytes)
        return await _read_json(counted) if is_json else counted


def _has_body(headers: Mapping[str, str]) -> bool:
    """Whether more than the head may be on its way, which nobody is going to read."""
    return not {"content-length", "transfer-encoding"}.isdisjoint(headers)


def _refuse_declared(length: str, most_bytes: int) -> None:
    if not (length.isascii() and length.isdigit()):
        raise ProblemError("malformed", "Content-Length is no number")
    if len(length) > len(str(most_bytes)) or int(length) > most_bytes:
        raise _too_large(most_bytes)


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
    """Takes the innermost pair of brackets away as often as the body may be deep, then looks."""
    left = _STRING.sub(b"", body).translate(_SQUARE, _NO_BRACKETS)
    for _ in range(DEEPEST):
        before, left = left, left.replace(b"[]", b"")
        if left == before:
            break
    # What is never closed is no JSON, but the parser would go down all of it before it says so.
    if b"[]" in left or left.count(b"[") > DEEPEST:
        raise ProblemError("too_deep", f"the body has more than {DEEPEST} levels")


def _too_large(most_bytes: int) -> HTTPException:
    """Of the framework's kind: it takes any other for a body that cannot be parsed."""
    return HTTPException(413, f"a body may have {most_bytes} bytes")


def _request_id(given: str | None) -> str:
    """The caller's own id where it is harmless, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req_{uuid.uuid4().hex}"
