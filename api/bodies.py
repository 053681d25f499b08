"""Bodies of requests that may be JSON or a form with files; each is checked before it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from api.problems import ProblemError

_MOST_FIELDS: Final = 64
_MOST_TEXT_BYTES: Final = 1_000_000
_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form; its name is what the caller calls it, and never a path here."""

    filename: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """Fields of a form, each as often as it was sent."""

    texts: Mapping[str, Sequence[str]]
    files: Mapping[str, Sequence[Upload]]

    def content(self) -> dict[str, Any]:
        """What makes two forms the same."""
        return {
            "texts": {name: list(values) for name, values in self.texts.items()},
            "files": {
                name: [[file.filename, hashlib.sha256(file.data).hexdigest()] for file in files]
                for name, files in self.files.items()
            },
        }


async def read_body(request: Request, *, most_files: int) -> Form | dict[str, Any]:
    """The form or the JSON object of a request; raises ProblemError for any other body."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given == _FORM:
        return await _form(request, most_files)
    if given != _JSON:
        raise ProblemError(
            "unsupported_media_type", f"{given or 'nothing'} was sent, not {_JSON} or {_FORM}"
        )
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ProblemError("malformed", f"the body is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ProblemError("malformed", "the body is no JSON object")
    return content


def parse(model: type[_Model], content: Mapping[str, Any]) -> _Model:
    """The content as a model; raises the framework's error, with every mistake of the body."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError(
            [{**detail, "loc": ("body", *detail["loc"])} for detail in found], body=content
        ) from error


def either(model: type[BaseModel], fields: Mapping[str, Any], required: Sequence[str]) -> Any:
    """The `requestBody` of a route that takes a model as JSON, or a form with these fields."""
    schema = model.model_json_schema()
    form = {"type": "object", "properties": fields, "required": list(required)}
    return {
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {"schema": _inlined(schema, schema.pop("$defs", {}))},
                _FORM: {"schema": form},
            },
        }
    }


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema with its references replaced: they would point to another document."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(item, definitions) for name, item in schema.items()}


async def _form(request: Request, most_files: int) -> Form:
    texts: dict[str, list[str]] = {}
    files: dict[str, list[Upload]] = {}
    async with request.form(
        max_files=most_files, max_fields=_MOST_FIELDS, max_part_size=_MOST_TEXT_BYTES
    ) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                upload = Upload(value.filename or "", await value.read())
                files.setdefault(name, []).append(upload)
            else:
                texts.setdefault(name, []).append(value)
    return Form(texts, files)
