"""A request as data: what is sent, and what the answer means; the sender waits or awaits."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel

from shortft_client.errors import ServerFaultError

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
Upload = tuple[str, tuple[str, bytes, str]]
"""Field name, and file name, content and media type."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request; sent again, it is the same one, with the same Idempotency-Key."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    read: Callable[[httpx2.Response], T]
    """Makes the result of an answer with a status below 300."""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    """Content that becomes JSON; None for no body."""
    form: Mapping[str, Any] | None = None
    """Fields beside the files."""
    files: tuple[Upload, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    held_seconds: float = 0.0
    """How long the service may hold the request on purpose."""


@dataclass(frozen=True, kw_only=True)
class Pages(Generic[T]):
    """A list that comes in pages: the first request, and how to read a page."""

    path: str
    item: Callable[[Any], T]
    query: Mapping[str, Any] = field(default_factory=dict)

    def page(self, after: str | None) -> Call[tuple[list[T], str | None]]:
        """The request for one page; it answers the items, and the cursor if there are more."""
        query = self.query if after is None else {**self.query, "after": after}
        return Call(method="GET", path=self.path, query=query, read=self._read)

    def _read(self, response: httpx2.Response) -> tuple[list[T], str | None]:
        content = response.json()
        more = content.get("last_id") if content.get("has_more") else None
        return [self.item(item) for item in content["data"]], more


def path(*parts: str) -> str:
    """An absolute path of these parts, whatever characters they hold."""
    return "/" + "/".join(quote(part, safe="@") for part in parts)


def get(where: str, kind: type[Model], **query: Any) -> Call[Model]:
    """A request for one object; parameters that are None are left out."""
    return Call(method="GET", path=where, query=given(query), read=reader(kind))


def get_json(where: str, **query: Any) -> Call[dict[str, Any]]:
    """A request for an object without a class of its own."""
    return Call(method="GET", path=where, query=given(query), read=read_json)


def post(where: str, kind: type[Model], body: Any = None, **query: Any) -> Call[Model]:
    """A request that does something at most once, however often it is sent."""
    return Call(
        method="POST",
        path=where,
        query=given(query),
        body=body,
        headers=new_key(),
        read=reader(kind),
    )


def get_bytes(where: str) -> Call[bytes]:
    """A request for a file, of whatever type it is."""
    return Call(
        method="GET", path=where, headers={"Accept": "*/*"}, read=lambda answer: answer.content
    )


def delete(where: str) -> Call[None]:
    """A request that removes something."""
    return Call(method="DELETE", path=where, read=lambda _: None)


def new_key() -> Mapping[str, str]:
    """A header that makes repeated requests one."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def reader(kind: type[Model]) -> Callable[[httpx2.Response], Model]:
    """A function that makes an object of a JSON body."""
    return lambda response: kind.model_validate(read_json(response))


def read_json(response: httpx2.Response) -> dict[str, Any]:
    """The mapping in a body; raises ServerFaultError for anything else."""
    try:
        content = response.json()
    except ValueError as error:
        problem = {"detail": f"the answer is no JSON: {response.text[:200]}", "code": "no_json"}
        raise ServerFaultError(response.status_code, problem) from error
    if not isinstance(content, dict):
        raise ServerFaultError(response.status_code, {"detail": "the answer is no object"})
    return content
