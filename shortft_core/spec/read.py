"""Reads a job specification from YAML or JSON, with every mistake named by its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from shortft_core.errors import UnknownNameError, UserError
from shortft_core.spec.distil import DistilSpec
from shortft_core.spec.job import AlignSpec, JobSpec
from shortft_core.spec.methods import AnyMethod
from shortft_core.spec.rewards import AnyReward

_MEMBERS: Final = {
    get_args(member.model_fields[key].annotation)[0]
    for union, key in ((AnyMethod, "type"), (AnyReward, "name"))
    for member in get_args(get_args(union)[0])
}
"""Values that choose a member of a union: pydantic puts them into the path of a mistake."""
_KINDS: Final = ("align", "distil")
_JOB: Final[TypeAdapter[AlignSpec | DistilSpec]] = TypeAdapter(JobSpec)
_Kind = TypeVar("_Kind", AlignSpec, DistilSpec)
_REMEDIES: Final = {
    "extra_forbidden": "Remove it or correct its spelling",
    "missing": "Add this field",
    "oracle": "Name it in evaluation.held_out",
    "value_error": "Change one of the fields it names",
}


def read_spec(path: Path) -> AlignSpec:
    """The alignment job in a file; raises UserError for the first mistake, counting the others."""
    return _expect(AlignSpec, parse_job(read_content(path)))


def read_distil(path: Path) -> DistilSpec:
    """The distillation in a file; errors as in `read_spec`."""
    return _expect(DistilSpec, parse_job(read_content(path)))


def parse_spec(content: dict[str, Any]) -> AlignSpec:
    """The alignment job in parsed content; errors as in `read_spec`."""
    return _expect(AlignSpec, parse_job(content))


def parse_job(content: dict[str, Any]) -> AlignSpec | DistilSpec:
    """The job of any kind in parsed content; errors as in `read_spec`."""
    try:
        return _JOB.validate_python(content)
    except ValidationError as error:
        raise user_error(error) from error


def read_content(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; raises UserError for anything else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError("spec", f"{path} cannot be read", "Give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("spec", f"{path} is not YAML ({error})", "Correct its syntax") from error
    if not isinstance(content, dict):
        raise UserError("spec", f"{path} holds no mapping", "Write `field: value` lines")
    return content


def _expect(kind: type[_Kind], job: AlignSpec | DistilSpec) -> _Kind:
    """The job, if it is of this kind."""
    if isinstance(job, kind):
        return job
    command = {"align": "train", "distil": "distil"}[job.kind]
    raise UserError("kind", f"this is a job of kind {job.kind}", f"Run `shortft {command}` on it")


def user_error(error: ValidationError, prefix: str = "") -> UserError:
    """The first of pydantic's mistakes as ours, with the nearest names or a remedy."""
    first, *others = error.errors()
    field = ".".join((prefix, *_path(first["loc"]))).strip(".") or "spec"
    context = first.get("ctx", {})
    if first["type"] == "union_tag_invalid":
        known = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        key = "kind" if field == "spec" else context["discriminator"].strip("'")
        at = key if field == "spec" else f"{field}.{key}"
        if context["tag"] == "oracle":
            return UserError(
                at, "the oracle only judges, nothing may be tuned on it", _REMEDIES["oracle"]
            )
        return UnknownNameError(at, context["tag"], known)
    if first["type"] == "union_tag_not_found":
        key = context["discriminator"].strip("'")
        return UserError(f"{field}.{key}", "it is missing", _REMEDIES["missing"])
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        known = [tag.strip(" '") for tag in context["expected"].replace(" or ", ",").split(",")]
        return UnknownNameError(field, first["input"], known)
    problem = first["msg"].removeprefix("Value error, ")
    more = f"; {len(others)} more mistakes follow" if others else ""
    remedy = _REMEDIES.get(first["type"], "Correct this field of the job specification")
    return UserError(field, f"{problem}{more}", remedy)


def _path(loc: tuple[int | str, ...]) -> list[str]:
    """The field as the user wrote it: pydantic names the chosen member of a union in between."""
    inner = loc[1:] if loc and loc[0] in _KINDS else loc
    return [
        str(part)
        for before, part in zip((None, *inner), inner, strict=False)
        if not (before == "method" or isinstance(before, int)) or part not in _MEMBERS
        # A number or a word: pydantic names the alternative that it tried.
        if before != "reward_threshold"
    ]
