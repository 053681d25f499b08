from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from api import key_watch
from api.key_watch import KeyWatch
from store import api_keys
from store.api_keys import NewApiKey, Scope
from store.engine import Database, open_database
from store.models import ApiKey
from store.settings import StoreSettings

NEW = NewApiKey(name="first", scopes=frozenset({Scope.ADMIN}))


@pytest.fixture
def database(stack: StoreSettings) -> Iterator[Database]:
    found = open_database(stack.database_address())
    yield found
    found.close()


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_no_is_asked_again_and_a_yes_is_kept(
    stack: StoreSettings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = KeyWatch(database, stack.secret())

    def keys_exist() -> bool:
        return asyncio.run(watch.keys_exist())

    assert not keys_exist()
    database.transact(lambda session: api_keys.issue(session, stack.secret(), NEW))
    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 3600.0)
    assert not keys_exist()
    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 0.0)
    assert keys_exist()
    database.close()
    assert keys_exist()


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_valid_key_is_remembered_for_a_second_and_a_wrong_one_never(
    stack: StoreSettings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, secret = KeyWatch(database, stack.secret()), stack.secret()
    row, key = database.transact(lambda session: api_keys.issue(session, secret, NEW))

    def found(shown: str) -> str | None:
        answer = asyncio.run(watch.find(shown))
        return None if answer is None else answer.id

    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 3600.0)
    later = api_keys.generate_key()
    assert (found(key), found(later)) == (row.id, None)
    database.transact(lambda session: api_keys.revoke(session, row.id, row.project))
    assert found(key) == row.id
    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 0.0)
    assert found(key) is None
    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 3600.0)
    # What was refused is not remembered as valid again.
    assert found(key) is None


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_only_so_many_keys_are_remembered(
    stack: StoreSettings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_watch, "_MOST_REMEMBERED", 1)
    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 3600.0)
    watch, secret = KeyWatch(database, stack.secret()), stack.secret()

    def issue() -> tuple[ApiKey, str]:
        return database.transact(lambda session: api_keys.issue(session, secret, NEW))

    def revoke(row: ApiKey) -> None:
        database.transact(lambda session: api_keys.revoke(session, row.id, row.project))

    issued = [issue(), issue()]
    for row, key in issued:
        assert asyncio.run(watch.find(key)) is not None
        revoke(row)
    assert [asyncio.run(watch.find(key)) is None for _, key in issued] == [True, False]
