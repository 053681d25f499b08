"""What the first bytes of a picture say of it: read here, so that nothing is decoded in this room.

A file that claims too many pixels is refused before any worker sees it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from shortft_core.errors import UserError

MOST_BYTES: Final = 20_000_000
"""Of one picture."""
MOST_PIXELS: Final = 4096 * 4096
"""A decoder takes three bytes for each."""
_LEAST_SIDE: Final = 8
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers whose segment begins with the picture's size."""
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xDA)})
"""Markers without a segment."""
_ANIMATED: Final = 0x02
SUFFIXES: Final[Mapping[str, str]] = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
}
"""Media types that are read -> ending of a stored file."""
_Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a picture's header states."""

    media_type: str
    width: int
    height: int


def inspect(data: bytes, field: str) -> PictureFacts:
    """The type and size of a PNG, JPEG or WebP; raises UserError for any other, or too large."""
    if len(data) > MOST_BYTES:
        problem = f"it has {len(data)} bytes, more than {MOST_BYTES}"
        raise UserError(field, problem, "Send a smaller picture")
    media_type, read_size = _format(data, field)
    try:
        width, height = read_size(data)
    except (struct.error, IndexError, ValueError) as error:
        raise _broken(field, media_type) from error
    if min(width, height) < _LEAST_SIDE or width * height > MOST_PIXELS:
        problem = f"it has {width} x {height} pixels"
        remedy = f"Send one of at least {_LEAST_SIDE} a side and at most {MOST_PIXELS} in all"
        raise UserError(field, problem, remedy)
    return PictureFacts(media_type, width, height)


def _format(data: bytes, field: str) -> tuple[str, Callable[[bytes], _Size]]:
    if data.startswith(_PNG):
        return "image/png", _png_size
    if data.startswith(_JPEG):
        return "image/jpeg", _jpeg_size
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp", _webp_size
    raise UserError(field, "it is no PNG, JPEG or WebP", "Send one of these, whatever its name")


def _broken(field: str, media_type: str) -> UserError:
    return UserError(field, f"its {media_type} header cannot be read", "Send a still picture")


def _png_size(data: bytes) -> _Size:
    length, kind, width, height = struct.unpack_from(">I4sII", data, len(_PNG))
    if (length, kind) != (13, b"IHDR"):
        raise ValueError("the first chunk is no IHDR")
    return width, height


def _jpeg_size(data: bytes) -> _Size:
    """Walks over the segments to the frame header."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 if marker in _JPEG_BARE else 2 + _segment_length(data, at + 2)
    raise ValueError("no frame header")


def _segment_length(data: bytes, at: int) -> int:
    (length,) = struct.unpack_from(">H", data, at)
    if length < 2:
        raise ValueError("a segment without its own length")
    return int(length)


def _webp_size(data: bytes) -> _Size:
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8 ":
        start_code, width, height = struct.unpack_from("<3x3sHH", body)
        if start_code != b"\x9d\x01\x2a":
            raise ValueError("no key frame")
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        signature, bits = struct.unpack_from("<BI", body)
        if signature != 0x2F:
            raise ValueError("no lossless signature")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X" and len(body) == 10 and not body[0] & _ANIMATED:
        width, height = (int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
        return width + 1, height + 1
    raise ValueError("no still picture")
