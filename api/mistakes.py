"""All mistakes of a request at once, each in the words that the command line has for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from api.schemas.problems import Mistake
from shortft_core.errors import UnknownNameError
from shortft_core.spec.read import user_error

_Where = Literal["body", "query", "path", "header"]
_OURS: Final = frozenset({"value_error", "assertion_error"})
_WITH_REMEDY: Final = frozenset(
    {"extra_forbidden", "missing", "value_error", "union_tag_not_found"}
)


def mistakes_of(found: Sequence[Mapping[str, Any]]) -> tuple[list[Mistake], list[str]]:
    """What pydantic found as mistakes, and the fields as people write them, in the same order."""
    mistakes, params = [], []
    for detail in found:
        where, *path = detail["loc"]
        field, message = _described(detail, tuple(path))
        mistakes.append(
            Mistake(
                where=cast("_Where", where),
                pointer=_pointer(field),
                code=str(detail["type"]),
                message=message,
            )
        )
        params.append(field or str(where))
    return mistakes, params


def _described(detail: Mapping[str, Any], path: tuple[int | str, ...]) -> tuple[str, str]:
    """Field and message; the core knows which parts of a path pydantic has put in itself."""
    error = user_error(ValidationError.from_exception_data("", [_again(detail, path)]))
    field = "" if error.field == "spec" else error.field
    if isinstance(error, UnknownNameError) or detail["type"] in _WITH_REMEDY:
        return field, f"{error.problem}. {error.remedy}."
    return field, f"{error.problem}."


def _again(detail: Mapping[str, Any], path: tuple[int | str, ...]) -> InitErrorDetails:
    kind, context = str(detail["type"]), dict(detail.get("ctx", {}))
    again: str | PydanticCustomError = kind
    if kind not in _OURS and not context:
        # Some types cannot be made again without what their message is filled with.
        again = PydanticCustomError(
            cast("Any", kind), cast("Any", "{text}"), {"text": detail["msg"]}
        )
    return InitErrorDetails(type=again, loc=path, input=detail.get("input"), ctx=context)


def _pointer(field: str) -> str:
    """RFC 6901; a field of the specification never holds a dot."""
    parts = field.replace("~", "~0").replace("/", "~1").split(".")
    return "".join(f"/{part}" for part in parts) if field else ""
