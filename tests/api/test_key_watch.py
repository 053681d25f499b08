from __future__ import annotations

import pytest

from api import key_watch
from api.key_watch import KeyWatch
from store import api_keys
from store.api_keys import NewApiKey, Scope
from store.engine import open_database
from store.settings import StoreSettings


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_no_is_asked_again_and_a_yes_is_kept(
    stack: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(stack.database_address())
    watch = KeyWatch(database)
    assert not watch.keys_exist()
    new = NewApiKey(name="first", scopes=frozenset({Scope.ADMIN}))
    database.transact(lambda session: api_keys.issue(session, stack.secret(), new))
    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 3600.0)
    assert not watch.keys_exist()
    monkeypatch.setattr(key_watch, "ASK_EVERY_SECONDS", 0.0)
    assert watch.keys_exist()
    database.close()
    assert watch.keys_exist()
