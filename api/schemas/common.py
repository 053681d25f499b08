"""What lists have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, Generic, Literal, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.urls import unversioned, urls_for
from store.errors import NotFoundError
from store.pages import MOST_ROWS, Page, PageRequest

_Row = TypeVar("_Row")
Item = TypeVar("Item")
MOST_INT: Final = 2**31 - 1
"""Largest number that a column of both databases holds."""
_ID: Final = re.compile(r"[a-z]{2,4}_[0-9a-z]{26}", re.ASCII)
_ID_PATTERN: Final = f"^{_ID.pattern}$"


def checked_id(kind: str, given: str) -> str:
    """An id that a row may have; raises NotFoundError for text that can be none.

    PostgreSQL does not compare what it cannot store, so such text must not reach it.
    """
    if not _ID.fullmatch(given):
        raise NotFoundError(kind, ascii(given))
    return given


def names_row(kind: str) -> AfterValidator:
    """The same check, for the type of a path parameter."""
    return AfterValidator(partial(checked_id, kind))


JobId = Annotated[str, names_row("job")]


class Answer(BaseModel):
    """An answer: frozen, and with its fields' comments in the document."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ListOf(Answer, Generic[Item]):
    """One page of a list."""

    # For each kind of item the comments would be looked for in the source again.
    model_config = ConfigDict(use_attribute_docstrings=False)

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None = Field(
        description="Give it as `before` for the page before this one.",
    )
    last_id: str | None = Field(
        description="Give it as `after` for the page behind this one.",
    )
    has_more: bool = Field(
        description="Whether the list goes on in the direction in which it was read.",
    )


async def page_request(
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS, description="Rows of a page.")] = 20,
    order: Annotated[
        Literal["desc", "asc"], Query(description="`desc`: the newest first.")
    ] = "desc",
    after: Annotated[
        str | None, Query(pattern=_ID_PATTERN, description="The page behind the row with this id.")
    ] = None,
    before: Annotated[
        str | None, Query(pattern=_ID_PATTERN, description="The page before the row with this id.")
    ] = None,
) -> PageRequest:
    """The page that a request asks for."""
    return PageRequest(limit=limit, order=order, after=after, before=before)


AnyPage = Annotated[PageRequest, Depends(page_request)]
"""Parameter of a route: which part of a list."""


def list_of(
    page: Page[_Row],
    shape: Callable[[_Row], Item],
    row_id: Callable[[_Row], str],
    request: Request,
    response: Response,
    *,
    asked: PageRequest,
) -> ListOf[Item]:
    """The answer for a page; sets `Link` (RFC 8288) where the list goes on."""
    ids = [row_id(row) for row in page.rows]
    if page.has_more and ids:
        backwards = asked.before is not None
        cursor = {"before": ids[0]} if backwards else {"after": ids[-1]}
        relation = "prev" if backwards else "next"
        where = urls_for(request).of(_with_query(request, cursor))
        response.headers["Link"] = f'<{where}>; rel="{relation}"'
    return ListOf(
        data=[shape(row) for row in page.rows],
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=page.has_more,
    )


def _with_query(request: Request, cursor: dict[str, Any]) -> str:
    """Path and query of the page at a cursor."""
    asked = request.query_params.multi_items()
    kept = [pair for pair in asked if pair[0] not in {"after", "before"}]
    return f"{unversioned(request.scope['path'])}?{urlencode([*kept, *cursor.items()])}"
