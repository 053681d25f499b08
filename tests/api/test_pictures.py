"""Sizes and types come from the header alone, and agree with what a decoder says."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from api.pictures import MOST_BYTES, PictureFacts, inspect
from shortft_core.errors import UserError


def encoded(file_format: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 128).save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("file_format", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0" + b"x" * 500, "comment": b"\xff\xc0 no frame"}),
        ("WEBP", "RGB", {"lossless": False}),
        ("WEBP", "RGBA", {"lossless": False}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGB", {"exif": b"Exif\0\0xx"}),
    ],
)
@pytest.mark.parametrize("size", [(8, 8), (64, 48), (1021, 513)])
def test_agrees_with_the_encoder(
    file_format: str, mode: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    data = encoded(file_format, size, mode, **options)
    expected = PictureFacts(f"image/{file_format.lower()}", *size)
    assert inspect(data, "images.0") == expected


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9))


@pytest.mark.parametrize("size", [(4097, 4096), (2**31, 2**31), (7, 64), (64, 0)])
def test_refuses_sizes_from_the_header_alone(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels") as refused:
        inspect(bomb(*size), "images.3")
    assert refused.value.field == "images.3"


def test_the_largest_picture_passes() -> None:
    assert inspect(bomb(4096, 4096), "images.0").width == 4096


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(20),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"RIFF\0\0\0\0WAVEfmt ",
    ],
)
def test_refuses_other_types(data: bytes) -> None:
    with pytest.raises(UserError, match="no PNG, JPEG or WebP"):
        inspect(data, "images.0")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_refuses_torn_headers(file_format: str) -> None:
    torn = encoded(file_format, (64, 64))[:18]
    with pytest.raises(UserError, match="header cannot be read"):
        inspect(torn, "images.0")


def test_refuses_animations() -> None:
    frames = [Image.new("RGB", (32, 32), shade) for shade in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="still picture"):
        inspect(file.getvalue(), "images.0")


def test_refuses_large_files() -> None:
    with pytest.raises(UserError, match="more than 20000000"):
        inspect(b"\x89PNG\r\n\x1a\n" + bytes(MOST_BYTES), "images.0")


@given(
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8X"]),
    st.binary(max_size=60),
)
def test_garbage_is_refused_or_within_the_limits(magic: bytes, rest: bytes) -> None:
    try:
        facts = inspect(magic + rest, "images.0")
    except UserError:
        return
    assert min(facts.width, facts.height) >= 8
    assert facts.width * facts.height <= 4096 * 4096
