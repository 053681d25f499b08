"""Settings of a whole service below the processes: database, objects and broker, in two kinds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from migrations.run import upgrade
from store.engine import open_database
from store.settings import StoreSettings
from tests.servers.redis import RedisServer

STACKS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    database = open_database(f"sqlite:///{path}")
    upgrade(database.engine)
    database.close()
    return path


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSettings]:
    """SQLite with messages in files, and PostgreSQL with Redis: migrated, without rows.

    `pytest.mark.parametrize("stack", ["sqlite"], indirect=True)` asks for one of them.
    """
    folder, secret = tmp_path / "data", SecretStr("0123456789abcdef" * 4)
    folder.mkdir()
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), folder / "shortft.db")
        yield StoreSettings(data_dir=folder, secret_key=secret)
        return
    url: URL = request.getfixturevalue("postgresql_url")
    server: RedisServer = request.getfixturevalue("redis_server")
    yield StoreSettings(
        data_dir=folder,
        secret_key=secret,
        database_url=SecretStr(url.render_as_string(hide_password=False)),
        redis_url=SecretStr(server.url),
    )
