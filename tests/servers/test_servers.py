from __future__ import annotations

import pytest
from redis.exceptions import RedisError
from sqlalchemy import URL, text

from migrations.version import HEAD, current
from store.engine import open_database
from store.settings import StoreSettings
from tests.servers.redis import RedisServer


def test_each_test_has_a_migrated_database_of_its_own(postgresql_url: URL) -> None:
    database = open_database(postgresql_url)
    assert current(database.engine) == HEAD
    with database.write() as session:
        assert session.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 0
        session.execute(text("CREATE TABLE a_test_was_here (id int)"))
    database.close()


@pytest.mark.parametrize(
    ("redis_server", "kept"), [(False, None), (True, b"1")], indirect=["redis_server"]
)
def test_redis_comes_back_with_what_it_had_written(
    redis_server: RedisServer, kept: bytes | None
) -> None:
    with redis_server.client() as client:
        client.config_set("appendfsync", "always")
        client.set("key", "1")
    redis_server.kill()
    with redis_server.client() as client, pytest.raises(RedisError):
        client.ping()
    redis_server.start()
    with redis_server.client() as client:
        assert client.get("key") == kept


def test_a_frozen_redis_accepts_and_never_answers(redis_server: RedisServer) -> None:
    redis_server.freeze()
    with redis_server.client() as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
        with pytest.raises(RedisError):
            client.ping()
    redis_server.thaw()
    with redis_server.client() as client:
        assert client.ping()


def test_a_stack_is_a_database_objects_and_a_broker(stack: StoreSettings) -> None:
    database = open_database(stack.database_address())
    kind = database.engine.dialect.name
    assert current(database.engine) == HEAD
    database.close()
    assert (stack.redis_address() is None) == (kind == "sqlite")
    assert stack.storage_address().startswith("file:///")
    assert stack.message_folder().is_relative_to(stack.data_dir)
    assert len(stack.secret()) == 64
