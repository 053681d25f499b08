"""What all parts of a job specification share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set as AbstractSet
from typing import Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

_T = TypeVar("_T")
HUB_ID: Final = r"^\w[\w.-]*/\w[\w.-]*$"
"""A repository of the model hub, `owner/name`."""


class Spec(BaseModel):
    """Frozen and closed: an unknown field is an error, never ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def resolved(value: _T | None, field: str) -> _T:
    """A field that `catalog.resolve` fills in; raises ValueError where nobody has called it."""
    if value is None:
        raise ValueError(f"{field} is unresolved: pass the spec through catalog.resolve")
    return value


def identity(spec: Spec, fields: AbstractSet[str] | None = None) -> str:
    """sha256 of a specification, or of some of its fields: equal content, equal hashes."""
    content = spec.model_dump(mode="json", include=None if fields is None else set(fields))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Source(Spec):
    """Where weights come from: exactly one of a catalog name, a hub id, or a path."""

    name: str | None = Field(default=None, max_length=200)
    """A name of the catalog."""
    id: str | None = Field(default=None, max_length=200, pattern=HUB_ID)
    """A repository of the model hub, `owner/name`."""
    revision: str | None = Field(default=None, max_length=200, pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    """Commit, tag or branch of `id`; name a commit for a run that others can repeat."""
    path: str | None = None
    """A file or folder: of this machine, or in a job below a service's folder of models."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.name, self.id, self.path)) != 1:
            raise ValueError("give exactly one of name, id, path")
        if self.revision is not None and self.id is None:
            raise ValueError("revision belongs to id: give the hub id, or drop revision")
        if ".." in (self.revision or ""):
            raise ValueError("revision holds '..', which no commit, tag or branch does")
        return self

    def __str__(self) -> str:
        return self.name or self.path or f"{self.id}@{self.revision or 'main'}"


class PromptSource(Spec):
    """Where prompts come from: exactly one of a catalog name, an uploaded set, a list, a file."""

    name: str | None = None
    """A prompt set of the catalog."""
    id: str | None = None
    """An uploaded prompt set (service only)."""
    inline: tuple[str, ...] | None = None
    """The prompts themselves."""
    path: str | None = None
    """A file: of this machine, or in a job below a service's folder of models."""
    column: str | None = None
    """The column or key that holds the prompt, for CSV, TSV and JSON objects."""
    split: Literal["all", "train", "eval"] = "all"
    """All prompts, or the part that each prompt's own hash puts into training or evaluation."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = (self.name, self.id, self.inline, self.path)
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of name, id, inline, path")
        if self.column is not None and self.inline is not None:
            raise ValueError("column belongs to a file: drop it beside inline")
        return self
