"""The shapes of API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.common import Answer
from store.api_keys import Scope


class NewKey(BaseModel):
    """What a key is for, and what it opens."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"name": "ci", "scopes": ["jobs:read", "jobs:write"]}]},
    )

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    """None for a key that does not expire."""


class KeyObject(Answer):
    """A key; the key itself is nowhere."""

    object: Literal["api_key"] = "api_key"
    id: str
    name: str
    project: str
    last_characters: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """Within a minute."""


class CreatedKey(KeyObject):
    """A new key, which is shown this once."""

    key: str = Field(examples=["sft_…"])


class KeyList(Answer):
    """All keys of a project, the newest first."""

    object: Literal["list"] = "list"
    data: list[KeyObject]
