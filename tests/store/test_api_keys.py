from __future__ import annotations

import re
import string
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text, update

from store import api_keys
from store.api_keys import NewApiKey, Scope
from store.errors import NotFoundError
from store.models import ApiKey

if TYPE_CHECKING:
    from tests.store.conftest import Bench

SECRET = b"a secret of the server, 32 bytes."


def _issue(bench: Bench, **fields: object) -> tuple[ApiKey, str]:
    new = NewApiKey(name="laptop", scopes=frozenset({Scope.JOBS_READ}), **fields)  # type: ignore[arg-type]
    return bench.database.transact(lambda session: api_keys.issue(session, SECRET, new))


def _authenticate(bench: Bench, key: str, secret: bytes = SECRET) -> str | None:
    with bench.database.read() as session:
        found = api_keys.authenticate(session, secret, key)
    return found.id if found else None


def test_a_key_opens_until_it_is_revoked(bench: Bench) -> None:
    row, key = _issue(bench)
    assert _authenticate(bench, key) == row.id
    assert (row.scopes, row.last_characters) == (["jobs:read"], key[-4:])
    with pytest.raises(NotFoundError):
        bench.database.transact(lambda session: api_keys.revoke(session, row.id, "theirs"))
    first = bench.database.transact(lambda session: api_keys.revoke(session, row.id, "default"))
    again = bench.database.transact(lambda session: api_keys.revoke(session, row.id, "default"))
    assert first.revoked_at == again.revoked_at is not None
    assert _authenticate(bench, key) is None


def test_the_key_itself_is_nowhere(bench: Bench) -> None:
    _, key = _issue(bench)
    with bench.database.read() as session:
        stored = str(session.execute(text("SELECT * FROM api_keys")).all())
    assert key not in stored
    assert key.removeprefix("sft_")[:30] not in stored


def test_another_server_or_key_opens_nothing(bench: Bench) -> None:
    _, key = _issue(bench)
    assert _authenticate(bench, key, b"another secret of another server") is None
    assert _authenticate(bench, api_keys.generate_key()) is None


def test_an_expired_key_opens_nothing(bench: Bench) -> None:
    now = datetime.now(tz=UTC)
    _, gone = _issue(bench, expires_at=now - timedelta(seconds=1))
    _, good = _issue(bench, expires_at=now + timedelta(hours=1))
    assert _authenticate(bench, gone) is None
    assert _authenticate(bench, good) is not None


def test_use_is_noted_once_a_minute(bench: Bench) -> None:
    row, _ = _issue(bench)
    times = []
    for age in (None, timedelta(seconds=30), timedelta(seconds=90)):
        if age is not None:
            with bench.database.write() as session:
                session.execute(update(ApiKey).values(last_used_at=datetime.now(tz=UTC) - age))
        with bench.database.write() as session:
            api_keys.note_use(session, row.id)
        with bench.database.read() as session:
            (found,) = api_keys.keys(session, "default")
        assert found.last_used_at is not None
        times.append(datetime.now(tz=UTC) - found.last_used_at)
    assert times[0] < timedelta(seconds=20)
    assert timedelta(seconds=25) < times[1] < timedelta(seconds=60)
    assert times[2] < timedelta(seconds=20)


def test_a_key_has_the_form_that_scanners_know() -> None:
    made = {api_keys.generate_key() for _ in range(100)}
    assert len(made) == 100
    for key in made:
        assert re.fullmatch(r"sft_[0-9A-Za-z]{43}", key)
        assert api_keys.is_well_formed(key)


def test_one_wrong_letter_is_noticed() -> None:
    key = api_keys.generate_key()
    for place in range(4, len(key)):
        letters = string.ascii_letters + string.digits
        wrong = letters[(letters.index(key[place]) + 1) % len(letters)]
        assert not api_keys.is_well_formed(key[:place] + wrong + key[place + 1 :])
    for other in ("", "sft_", key[:-1], key + "a", key[4:], "sfx_" + key[4:]):
        assert not api_keys.is_well_formed(other)
