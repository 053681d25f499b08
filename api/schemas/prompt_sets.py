"""Prompt sets: uploaded ones, and those of the catalog."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from api.schemas.common import Answer
from shortft_core.spec import Spec

MOST_PROMPTS: Final = 100_000
MOST_CHARACTERS: Final = 4000
"""Of one prompt; text encoders see a few hundred."""


class NewPromptSet(Spec):
    """Prompts to keep; files come as multipart fields instead."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "animals", "prompts": ["a cat", "a dog on a red mat"]}]
        }
    )

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
    """Free in the project."""
    prompts: tuple[str, ...] = Field(min_length=1, max_length=MOST_PROMPTS)


class PromptSetAnswer(Answer):
    """A prompt set; a job names an uploaded one by `id`, one of the catalog by `name`."""

    object: Literal["prompt_set"] = "prompt_set"
    id: str
    """Of a set of the catalog: its name."""
    name: str
    origin: Literal["uploaded", "catalog"]
    sha256: str | None
    """Of the prompts, one per line; None for a set that is not on this machine yet."""
    count: int | None
    size_bytes: int | None
    summary: str | None
    """Of a set of the catalog."""
    licence: str | None
    """Of a set of the catalog."""
    created_at: datetime | None


class CreatedPromptSet(PromptSetAnswer):
    """A new set, and what was odd about its file."""

    duplicates: int
    """Prompts that repeat an earlier one; they are kept."""
    empties: int
    """Lines without a prompt; they are left out."""
    warnings: list[str]


class PromptAnswer(Answer):
    """One prompt of a set."""

    index: int
    """From 0."""
    text: str


class PromptList(Answer):
    """A part of a set's prompts."""

    object: Literal["list"] = "list"
    data: list[PromptAnswer]
    total: int
    has_more: bool
    """Whether there are prompts behind these."""
