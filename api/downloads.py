"""Stored bytes as answers: streamed, in ranges, and not at all to whoever has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import Header
from starlette.responses import Response, StreamingResponse

from api.conditional import is_known
from api.problems import ProblemError
from shortft_core.errors import ArtifactError
from store.objects import ObjectStore, StoredObject

_CHUNK_BYTES: Final = 1 << 18
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_UNSAFE: Final = re.compile(r"[^\w.=+@ -]", re.ASCII)
RangeHeader = Annotated[
    str | None, Header(alias="Range", description="`bytes=0-1023`: one range.", max_length=100)
]
"""Parameter of a route: which part of the bytes."""
IfRange = Annotated[
    str | None, Header(description="An `ETag`: the range counts for this version alone.")
]
"""Parameter of a route: the version that a range belongs to."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a client says of the bytes it has, and how much of them it wants."""

    range_: str | None = None
    if_none_match: str | None = None
    if_range: str | None = None
    only_headers: bool = False
    """Whether it asks with HEAD."""


@dataclass(frozen=True, slots=True)
class _Part:
    start: int
    stop: int


def content(
    objects: ObjectStore,
    stored: StoredObject,
    *,
    media_type: str,
    filename: str,
    conditions: Conditions,
    inline: bool = False,
) -> Response:
    """The bytes of an object that a row names; raises ArtifactError if they are gone.

    Raises ProblemError 416 for a range outside of them.
    """
    etag = f'"{stored.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": disposition(filename, inline=inline),
        "X-Content-Type-Options": "nosniff",
    }
    if is_known(etag, conditions.if_none_match):
        return Response(status_code=304, headers=headers)
    part = _part(conditions, etag, stored.size_bytes)
    # Asked now, so that missing bytes are a refusal and not a torn answer.
    if not objects.exists(stored.key):
        raise ArtifactError(f"there is no artifact {stored.key}")
    whole = part is None
    part = part or _Part(0, stored.size_bytes)
    headers["Content-Length"] = str(part.stop - part.start)
    if not whole:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{stored.size_bytes}"
    status = 200 if whole else 206
    if conditions.only_headers:
        return Response(None, status, headers, media_type)
    return StreamingResponse(_chunks(objects, stored.key, part), status, headers, media_type)


def _chunks(objects: ObjectStore, key: str, part: _Part) -> Iterator[bytes]:
    with objects.open(key) as file:
        file.seek(part.start)
        left = part.stop - part.start
        while left and (chunk := file.read(min(_CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


def disposition(filename: str, *, inline: bool) -> str:
    """`Content-Disposition` (RFC 6266), with a plain name for old clients beside the true one."""
    plain = _UNSAFE.sub("_", filename) or "download"
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _part(conditions: Conditions, etag: str, size: int) -> _Part | None:
    """The asked range; None for all of it, as for ranges that this service does not know."""
    given = conditions.range_
    if given is None or conditions.if_range not in {None, etag}:
        return None
    found = _RANGE.fullmatch(given.replace(" ", ""))
    if found is None or found[1] == found[2] == "":
        return None
    first, last = found[1], found[2]
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    if last and first and int(last) < int(first):
        return None
    if start >= size or stop <= start:
        raise ProblemError(
            "range_not_satisfiable",
            f"{given} lies outside of {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return _Part(start, stop)
