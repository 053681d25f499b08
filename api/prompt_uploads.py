"""Prompt sets from outside: a file of any known format, or a list; bounded before it is stored."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final, Self

from fastapi import Request

from api.bodies import Form, parse, read_body
from api.idempotent import IdempotencyKey, Keyed, keyed_by
from api.schemas.prompt_sets import MOST_CHARACTERS, MOST_PROMPTS, NewPromptSet
from shortft_core import prompts
from shortft_core.errors import PromptError, UserError
from shortft_core.prompts import PromptSet

MOST_BYTES: Final = 10_000_000
"""Of a file."""
FIELDS: Final[dict[str, Any]] = {
    "file": {
        "type": "string",
        "format": "binary",
        "description": f"A file that ends in {', '.join(prompts.FORMATS)}.",
    },
    "name": {"type": "string", "description": "By default the file's name without its ending."},
    "column": {"type": "string", "description": "Column or key that holds the prompt."},
}
"""The form of an upload."""


@dataclass(frozen=True, slots=True)
class PromptUpload:
    """A set that can be stored."""

    name: str
    prompts: PromptSet
    keyed: Keyed | None = None

    @classmethod
    async def read(cls, request: Request, idempotency_key: IdempotencyKey = None) -> Self:
        """What the body holds; raises UserError or ProblemError for what cannot be a set."""
        body = await read_body(request, most_files=1)
        content = body.content() if isinstance(body, Form) else body
        keyed = None if idempotency_key is None else keyed_by(request, idempotency_key, content)
        found = cls.from_form(body) if isinstance(body, Form) else cls.from_json(body)
        return replace(found, keyed=keyed)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """A set whose prompts are a list."""
        given = parse(NewPromptSet, content)
        # By way of the file format, so that both ways give the same set the same hash.
        data = json.dumps(given.prompts).encode()
        return cls(given.name, _bounded(prompts.parse(data, "json"), "prompts"))

    @classmethod
    def from_form(cls, form: Form) -> Self:
        """A set in a file; its name is a title here, never a path."""
        unknown = sorted({*form.texts, *form.files} - set(FIELDS))
        if unknown:
            raise UserError(unknown[0], "there is no such field", f"Use {', '.join(FIELDS)}")
        if "file" not in form.files:
            raise UserError("file", "there is no file in this field", "Send one")
        file = form.files["file"][0]
        if len(file.data) > MOST_BYTES:
            raise UserError("file", f"it has more than {MOST_BYTES} bytes", "Send a smaller file")
        path = PurePosixPath(file.filename.replace("\\", "/"))
        if path.suffix.lower() not in prompts.FORMATS:
            known = ", ".join(prompts.FORMATS)
            raise UserError("file", f"its name ends in none of {known}", "Rename the file")
        column = form.texts["column"][-1] if "column" in form.texts else None
        found = prompts.parse(
            file.data, prompts.FORMATS[path.suffix.lower()], column=column, field="file"
        )
        name = form.texts["name"][-1] if "name" in form.texts else path.stem
        # The name passes the same checks as one in JSON does.
        title = parse(NewPromptSet, {"name": name, "prompts": ["any"]}).name
        return cls(title, _bounded(found, "file"))


def _bounded(found: PromptSet, field: str) -> PromptSet:
    if len(found.prompts) > MOST_PROMPTS:
        problem = f"it holds {len(found.prompts)} prompts, more than {MOST_PROMPTS}"
        raise PromptError(field, problem, "Split it into several sets")
    for number, prompt in enumerate(found.prompts, start=1):
        if len(prompt) > MOST_CHARACTERS:
            problem = f"prompt {number} has {len(prompt)} characters, more than {MOST_CHARACTERS}"
            raise PromptError(field, problem, "Shorten it: text encoders see its beginning only")
        if "\0" in prompt:
            raise PromptError(field, f"prompt {number} holds a NUL character", "Remove it")
    return found
