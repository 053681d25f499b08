"""Reads a job specification from YAML or JSON, with every mistake named by its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from shortft_core.errors import UnknownNameError, UserError
from shortft_core.spec.job import AlignSpec

_REMEDIES: Final = {
    "extra_forbidden": "Remove it or correct its spelling",
    "missing": "Add this field",
    "value_error": "Change one of the fields it names",
}


def read_spec(path: Path) -> AlignSpec:
    """The specification in a file; raises UserError for the first mistake and counts the others."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError("spec", f"{path} cannot be read", "Give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("spec", f"{path} is not YAML ({error})", "Correct its syntax") from error
    if not isinstance(content, dict):
        raise UserError("spec", f"{path} holds no mapping", "Write `field: value` lines")
    return parse_spec(content)


def parse_spec(content: dict[str, Any]) -> AlignSpec:
    """The specification in parsed content; errors as in `read_spec`."""
    try:
        return AlignSpec.model_validate(content)
    except ValidationError as error:
        raise user_error(error) from error


def user_error(error: ValidationError, prefix: str = "") -> UserError:
    """The first of pydantic's mistakes as ours, with the nearest names or a remedy."""
    first, *others = error.errors()
    field = ".".join((prefix, *map(str, first["loc"]))).strip(".") or "spec"
    context = first.get("ctx", {})
    if first["type"] == "union_tag_invalid":
        known = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return UnknownNameError(f"{field}.name", context["tag"], known)
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        known = [tag.strip(" '") for tag in context["expected"].replace(" or ", ",").split(",")]
        return UnknownNameError(field, first["input"], known)
    problem = first["msg"].removeprefix("Value error, ")
    more = f"; {len(others)} more mistakes follow" if others else ""
    remedy = _REMEDIES.get(first["type"], "Correct this field of the job specification")
    return UserError(field, f"{problem}{more}", remedy)
