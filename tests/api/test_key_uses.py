from __future__ import annotations

import logging

import pytest
from sqlalchemy import select

from api.key_uses import KeyUses
from store.api_keys import Scope
from store.models import ApiKey
from tests.api.conftest import Api

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def used(api: Api) -> list[bool]:
    """Of each key, the oldest first, whether its use was noted."""
    with api.database.read() as session:
        rows = session.scalars(select(ApiKey).order_by(ApiKey.id)).all()
    return [row.last_used_at is not None for row in rows]


def test_a_read_does_not_wait_for_who_writes(api: Api) -> None:
    key = api.key(Scope.JOBS_READ)
    with api.database.write():
        assert api.client.get("/jobs", headers=key).status_code == 200
    assert used(api) == [False]
    api.service.key_uses.write()
    assert used(api) == [True]


def test_only_keys_that_were_used_are_noted_and_once(api: Api) -> None:
    first, second = api.key(), api.key()
    for key in (second, second):
        assert api.client.get("/jobs", headers=key).status_code == 200
    assert api.client.get("/jobs", headers={"X-API-Key": "x"}).status_code == 401
    api.service.key_uses.write()
    assert used(api) == [False, True]
    api.client.get("/jobs", headers=first)
    api.service.key_uses.stop()
    assert used(api) == [True, True]


def test_what_the_database_refuses_is_written_later(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.key()
    with api.database.read() as session:
        (key_id,) = session.scalars(select(ApiKey.id))
    uses = KeyUses(api.database)
    uses.note(key_id)
    with api.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO away")
    with caplog.at_level(logging.WARNING):
        uses.write()
    assert "was not noted" in caplog.text
    with api.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO api_keys")
    uses.write()
    assert used(api) == [True]
