"""All mistakes of a request at once, each in the words that the command line has for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from api.problems import ProblemError
from api.schemas.problems import Mistake
from shortft_core import catalog
from shortft_core.errors import MissingWeightsError, PlanError, UnknownNameError, UserError
from shortft_core.spec.read import user_error

_CODES: Final = (
    (MissingWeightsError, "model_not_available_offline"),
    (PlanError, "no_legal_plan"),
    (UnknownNameError, "unknown_name"),
    (UserError, "invalid_value"),
)
_NAMED: Final[Mapping[str, Mapping[str, object]]] = {
    "base_model": catalog.BASE_MODELS,
    "prompts": catalog.PROMPT_SETS,
    "evaluation.prompts": catalog.PROMPT_SETS,
}
"""Fields of a body that name a row of the catalog, which its schema does not know."""
_Where = Literal["body", "query", "path", "header"]
_OURS: Final = frozenset({"value_error", "assertion_error"})
_WITH_REMEDY: Final = frozenset(
    {"extra_forbidden", "missing", "value_error", "union_tag_not_found"}
)


def mistakes_of(
    found: Sequence[Mapping[str, Any]], body: object = None
) -> tuple[list[Mistake], list[str]]:
    """What pydantic found as mistakes, and the fields as people write them, in the same order.

    Names of a body that the catalog does not know follow.
    """
    mistakes, params = [], []
    for detail in found:
        if _is_long_enough(detail):
            continue
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
    wrong = {mistake.pointer for mistake in mistakes}
    for error in _unknown_names(body):
        pointer = _pointer(error.field)
        # A field that is wrong as a whole is told once.
        if wrong.isdisjoint({pointer, pointer.removesuffix("/name"), "/evaluation"}):
            mistakes.append(_mistake(error))
            params.append(error.field)
    return mistakes, params


def _unknown_names(body: object) -> Iterator[UserError]:
    for field, table in _NAMED.items():
        part = body
        for key in field.split("."):
            part = part.get(key) if isinstance(part, dict) else None
        name = part.get("name") if isinstance(part, dict) else part
        if isinstance(name, str):
            yield from raised(partial(catalog.find, table, name, f"{field}.name"))


def raised(work: Callable[[], object]) -> Iterator[UserError]:
    """The user's mistake that `work` raises, or none."""
    try:
        work()
    except UserError as error:
        yield error


def first_of_each_field(found: Iterable[UserError]) -> list[UserError]:
    """One mistake per field: others of the same field often follow from it."""
    by_field: dict[str, UserError] = {}
    for error in found:
        by_field.setdefault(error.field, error)
    return list(by_field.values())


def refusal(found: Sequence[UserError]) -> ProblemError:
    """Mistakes of one kind under its code, others under a common one."""
    first = found[0]
    codes = {_code_of(error) for error in found}
    code = codes.pop() if len(codes) == 1 else "invalid_request"
    more = f" ({len(found) - 1} more in `errors`)" if len(found) > 1 else ""
    extra: dict[str, Any] = {"errors": [_mistake(error).model_dump() for error in found]}
    if len(found) == 1 and isinstance(first, UnknownNameError):
        extra["known"] = list(first.known)
    return ProblemError(code, f"{first}{more}", param=first.field, extra=extra)


def _mistake(error: UserError) -> Mistake:
    return Mistake(
        where="body",
        pointer=_pointer(error.field),
        code=_code_of(error),
        message=f"{error.problem}. {error.remedy}.",
    )


def _code_of(error: UserError) -> str:
    return next(code for kind, code in _CODES if isinstance(error, kind))


def _is_long_enough(detail: Mapping[str, Any]) -> bool:
    """Whether a list is called too short only because pydantic leaves out its wrong items."""
    if detail["type"] != "too_short" or not isinstance(detail["input"], list):
        return False
    return len(detail["input"]) >= int(detail["ctx"]["min_length"])


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
