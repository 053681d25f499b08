"""Requests that may be repeated: the first one does the work, its repetitions get its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.auth import Caller
from api.problems import ProblemError
from api.urls import unversioned
from store import idempotency
from store.idempotency import KeyedRequest

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Any text that is new for each intended request; kept for 24 hours. A "
        "repeated request is answered like the first one.",
        examples=["3f0c7c1e-5a43-4b0e-9a6b-0f6d8f0a2c11"],
    ),
]
"""Parameter of a route: the header `Idempotency-Key`."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """What the repetitions of a request have in common, whoever sends it."""

    key: str
    operation: str
    sha256: str

    def of(self, caller: Caller) -> KeyedRequest:
        """The request of this caller; projects share no keys."""
        return KeyedRequest(
            project=caller.project,
            operation=self.operation,
            key=self.key,
            request_sha256=self.sha256,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the first request."""

    resource_id: str
    status: int
    body: Mapping[str, Any]
    replayed: bool
    """Whether this request did nothing, because an earlier one had done it."""

    @property
    def headers(self) -> dict[str, str]:
        """Tells a repetition from the first request."""
        return {"Idempotent-Replayed": "true"} if self.replayed else {}

    def response(self, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
        """What is sent, with these headers too."""
        return JSONResponse(dict(self.body), self.status, {**headers, **self.headers})


async def keyed(request: Request, idempotency_key: IdempotencyKey = None) -> Keyed | None:
    """The key of a request with a JSON body or none; None without a key.

    Raises ProblemError for any other body: it has not been looked at before where its type is
    another one.
    """
    if idempotency_key is None:
        return None
    body = await request.body()
    try:
        content = json.loads(body) if body else None
        return keyed_by(request, idempotency_key, content)
    except (ValueError, RecursionError) as error:
        raise ProblemError("malformed", f"the body is no JSON: {error}") from error


AnyKeyed = Annotated[Keyed | None, Depends(keyed)]
"""Parameter of a route: the key of the request, if it has one."""


def keyed_by(request: Request, key: str, content: object) -> Keyed:
    """A key for content of any form that JSON can hold; the query counts as content."""
    canonical = json.dumps([sorted(request.query_params.multi_items()), content], sort_keys=True)
    path = unversioned(request.scope["path"])
    return Keyed(key, f"{request.method} {path}", hashlib.sha256(canonical.encode()).hexdigest())


def once(
    session: Session,
    request: KeyedRequest | None,
    resource_id: str,
    status: int,
    work: Callable[[], BaseModel],
) -> Reply:
    """The answer of `work`, which creates `resource_id`, or that of the first such request.

    Raises KeyReusedError and KeyInFlightError.
    """
    if request is not None:
        first = idempotency.claim(session, request, resource_id)
        if first is not None:
            return Reply(first.resource_id, 200, first.body, replayed=True)
    body = work().model_dump(mode="json")
    if request is not None:
        idempotency.answer(session, request, status, body)
    return Reply(resource_id, status, body, replayed=False)
