"""API keys: made here, shown once, kept as a keyed hash only."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session

from store.clock import database_now
from store.errors import NotFoundError
from store.ids import new_id
from store.models import ApiKey

PREFIX: Final = "sft_"
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH: Final = 37
_CHECKSUM_LENGTH: Final = 6
_USE_IS_NOTED_EVERY: Final = timedelta(minutes=1)


class Scope(StrEnum):
    """What a key may be used for."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    GENERATE = "generate"
    VOTES = "votes"
    ADMIN = "admin"
    """Everything, keys included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewApiKey:
    """Whose key it is and what it opens."""

    name: str
    scopes: frozenset[Scope]
    project: str = "default"
    expires_at: datetime | None = None


def generate_key() -> str:
    """A new key: 37 random characters, and 6 that scanners and clients can check without us."""
    body = "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM_LENGTH))
    return f"{PREFIX}{body}{_checksum(body)}"


def is_well_formed(key: str) -> bool:
    """Whether it can be a key at all; a mistyped one is told apart from a revoked one."""
    body = key.removeprefix(PREFIX)
    if not key.startswith(PREFIX) or len(body) != _RANDOM_LENGTH + _CHECKSUM_LENGTH:
        return False
    return _checksum(body[:_RANDOM_LENGTH]) == body[_RANDOM_LENGTH:]


def digest(secret: bytes, key: str) -> str:
    """What of a key is stored: its HMAC-SHA256 under the secret of the service."""
    return hmac.new(secret, key.encode(), hashlib.sha256).hexdigest()


def issue(session: Session, secret: bytes, new: NewApiKey) -> tuple[ApiKey, str]:
    """The row and the key itself, which is never seen again."""
    key = generate_key()
    row = {
        "id": new_id("key"),
        "project": new.project,
        "name": new.name,
        "digest": digest(secret, key),
        "last_characters": key[-4:],
        "scopes": sorted(new.scopes),
        "created_at": database_now(session),
        "expires_at": new.expires_at,
    }
    return session.scalars(insert(ApiKey).returning(ApiKey), [row]).one(), key


def issue_first(session: Session, secret: bytes, new: NewApiKey) -> str | None:
    """The key itself if it is the first of all; None where one was made before."""
    if session.get_bind().dialect.name == "postgresql":
        # Of two that start together, one has to see the other's key.
        session.execute(text("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE"))
    if any_exist(session):
        return None
    _, key = issue(session, secret, new)
    return key


def authenticate(session: Session, secret: bytes, key: str) -> ApiKey | None:
    """The row of a key that is known, neither revoked nor expired; else None."""
    if not is_well_formed(key):
        return None
    found = session.scalar(select(ApiKey).where(ApiKey.digest == digest(secret, key)))
    if found is None or found.revoked_at is not None:
        return None
    expired = found.expires_at is not None and found.expires_at <= database_now(session)
    return None if expired else found


def note_use(session: Session, key_id: str) -> None:
    """Notes that a key was used, at most once a minute so that reading does not become writing."""
    now = database_now(session)
    long_ago = ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at <= now - _USE_IS_NOTED_EVERY)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, long_ago)
        .values(last_used_at=now)
        .execution_options(synchronize_session=False)
    )


def revoke(session: Session, key_id: str, project: str) -> ApiKey:
    """Ends a key for good; a second time changes nothing. Raises NotFoundError."""
    now = database_now(session)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.project == project, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now)
        .execution_options(synchronize_session=False)
    )
    found = session.scalar(
        select(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.project == project)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFoundError("API key", key_id)
    return found


def any_exist(session: Session) -> bool:
    """Whether a key was ever made, valid or not."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def keys(session: Session, project: str) -> tuple[ApiKey, ...]:
    """All keys of a project, the newest first."""
    statement = select(ApiKey).where(ApiKey.project == project).order_by(ApiKey.id.desc())
    return tuple(session.scalars(statement))


def _checksum(body: str) -> str:
    """CRC-32 in base 62, as code-hosting sites write it."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
