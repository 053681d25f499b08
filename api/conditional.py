"""Conditional requests (RFC 9110, 13): what the client has already is not sent again."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Header

IfNoneMatch = Annotated[
    str | None, Header(description="An `ETag` of an earlier answer; equal: 304.", max_length=1000)
]
"""Parameter of a route: the header `If-None-Match`."""
_WEAK: Final = "W/"


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether the client has this version; compared weakly, as the RFC says for this header."""
    if if_none_match is None:
        return False
    given = [tag.strip().removeprefix(_WEAK) for tag in if_none_match.split(",")]
    return given == ["*"] or etag.removeprefix(_WEAK) in given
