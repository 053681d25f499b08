"""API keys of the caller's project: made, listed and ended by one with the scope `admin`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Response

from api.auth import Admin
from api.schemas.api_keys import CreatedKey, KeyList, KeyObject, NewKey
from api.schemas.common import names_row
from api.service import AnyService
from store import api_keys
from store.api_keys import NewApiKey, Scope
from store.models import ApiKey

router = APIRouter(tags=["api keys"])
KeyId = Annotated[str, names_row("API key")]


@router.post("/api-keys", status_code=201)
def create_api_key(
    wanted: NewKey, service: AnyService, caller: Admin, response: Response
) -> CreatedKey:
    """Makes a key. It is shown in this answer and never again."""
    days = wanted.expires_in_days
    new = NewApiKey(
        name=wanted.name,
        scopes=wanted.scopes,
        project=caller.project,
        expires_at=None if days is None else datetime.now(tz=UTC) + timedelta(days=days),
    )
    row, key = service.database.transact(
        lambda session: api_keys.issue(session, service.secret, new)
    )
    response.headers["Cache-Control"] = "no-store"
    return CreatedKey(**_key(row).model_dump(exclude={"object"}), key=key)


@router.get("/api-keys")
def list_api_keys(service: AnyService, caller: Admin) -> KeyList:
    """The keys of the project, revoked ones too."""
    with service.database.read() as session:
        return KeyList(data=[_key(row) for row in api_keys.keys(session, caller.project)])


@router.delete("/api-keys/{key_id}", status_code=204)
def delete_api_key(key_id: KeyId, service: AnyService, caller: Admin) -> None:
    """Ends a key for good; event streams that it has opened go on until they are renewed."""
    service.database.transact(lambda session: api_keys.revoke(session, key_id, caller.project))


def _key(row: ApiKey) -> KeyObject:
    return KeyObject(
        id=row.id,
        name=row.name,
        project=row.project,
        last_characters=row.last_characters,
        scopes=[Scope(scope) for scope in row.scopes],
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
