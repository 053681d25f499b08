"""Requests about API keys."""

from __future__ import annotations

from collections.abc import Sequence

from shortft_client.answers import ApiKey, CreatedApiKey
from shortft_client.call import Call, Pages, delete, given, path, post


def every() -> Pages[ApiKey]:
    """The keys of the project, revoked ones too."""
    return Pages(path="/api-keys", item=ApiKey.model_validate)


def create(
    name: str, scopes: Sequence[str], *, expires_in_days: int | None = None
) -> Call[CreatedApiKey]:
    """A new key, which is shown this once; an answer that is lost leaves one that opens nothing."""
    body = {"name": name, "scopes": list(scopes), "expires_in_days": expires_in_days}
    return post("/api-keys", CreatedApiKey, given(body))


def revoke(key_id: str) -> Call[None]:
    """Ends a key for good."""
    return delete(path("api-keys", key_id))
