"""Texts that can be sent, and that no database can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from shortft_core.spec import Spec

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
WHY: Final = "it holds a NUL character or half a surrogate pair"


def is_storable(text: str) -> bool:
    """Whether every character of a text can be stored."""
    return _UNSTORABLE.search(text) is None


def unstorable(part: Any, field: str) -> Iterator[str]:
    """The fields of a specification with texts that cannot be stored; labels count as one."""
    if isinstance(part, str | dict):
        texts = (part,) if isinstance(part, str) else (*part, *part.values())
        if not all(map(is_storable, texts)):
            yield field
        return
    for name, value in _parts(part):
        yield from unstorable(value, f"{field}.{name}".lstrip("."))


def _parts(part: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(part, Spec):
        return ((name, getattr(part, name)) for name in type(part).model_fields)
    return enumerate(part) if isinstance(part, tuple) else ()
