"""A request as data: what is sent, and what the answer means; the sender waits or awaits."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError

from shortft_client.errors import ServerFaultError

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
Upload = tuple[str, tuple[str, bytes, str]]
"""Field name, and file name, content and media type."""
_QUOTED: Final = 200
"""How many characters of an answer an error shows."""


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
        return understood(response, self._understood)

    def _understood(self, content: dict[str, Any]) -> tuple[list[T], str | None]:
        listed = Listed.model_validate(content)
        more = listed.last_id if listed.has_more else None
        return [self.item(item) for item in listed.data], more


class Listed(BaseModel):
    """A list as it comes, whole or one page of it."""

    model_config = ConfigDict(title="list")

    data: list[Any]
    has_more: bool = False
    last_id: str | None = None


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
    return lambda response: understood(response, kind.model_validate)


def list_reader(kind: type[Model]) -> Callable[[httpx2.Response], list[Model]]:
    """The same for a list that comes whole."""
    return lambda response: understood(
        response,
        lambda content: [kind.model_validate(item) for item in Listed.model_validate(content).data],
    )


def understood(response: httpx2.Response, make: Callable[[dict[str, Any]], T]) -> T:
    """What a JSON body means; raises ServerFaultError for one that means something else."""
    content = read_json(response)
    try:
        return make(content)
    except ValidationError as error:
        raise unexpected(response.status_code, response.text, error) from error


def read_json(response: httpx2.Response) -> dict[str, Any]:
    """The mapping in a body; raises ServerFaultError for anything else."""
    try:
        content = response.json()
    except ValueError as error:
        raise unreadable(response.status_code, response.text, "no JSON", "no_json") from error
    if not isinstance(content, dict):
        raise unreadable(response.status_code, response.text, "no object")
    return content


def unexpected(status: int, text: str, error: ValidationError) -> ServerFaultError:
    """The error of JSON that lacks what was asked for."""
    first = error.errors(include_url=False)[0]
    reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    return unreadable(status, text, f"no {error.title} ({reason})")


def unreadable(
    status: int, text: str, what: str, code: str = "unexpected_answer"
) -> ServerFaultError:
    """The error of an answer that means nothing here, with its start."""
    return ServerFaultError(
        status, {"detail": f"the answer is {what}: {text[:_QUOTED]}", "code": code}
    )
