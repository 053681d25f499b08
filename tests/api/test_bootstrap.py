"""Secrets are made once and kept; the first key exists exactly once, on both databases."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import URL, make_url
from typer.testing import CliRunner, Result

from api.bootstrap import app, create_secrets, issue_first_key
from migrations.version import HEAD, current
from shortft_core.errors import UserError
from store import api_keys
from store.engine import Database, open_database
from store.models import ApiKey
from tests.api.process import invoke
from tests.servers.postgresql import administrate

SECRET: Final = "0123456789abcdef" * 4
DATABASE: Final = "postgresql+psycopg://shortft@postgres:5432/shortft"
REDIS: Final = "redis://redis:6379/0"
FILES: Final = {
    "api/secret_key",
    "postgres/password",
    "redis/auth.conf",
    "redis/password",
    "shared/database_url",
    "shared/redis_url",
}


def _contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text().strip() for path in files}


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.bootstrap", *arguments],
        env={"PATH": os.defpath, **environment},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """The address of a database without tables."""
    if request.param == "sqlite":
        yield make_url(f"sqlite:///{tmp_path}/new.db")
        return
    server: URL = request.getfixturevalue("postgresql_server")
    administrate(server, "CREATE DATABASE bootstrap")
    yield server.set(database="bootstrap")
    administrate(server, "DROP DATABASE bootstrap WITH (FORCE)")


def _settings(url: URL) -> dict[str, str]:
    address = url.render_as_string(hide_password=False)
    return {"SHORTFT_DATABASE_URL": address, "SHORTFT_SECRET_KEY": SECRET}


def _migrate_here(url: URL, *arguments: str) -> Result:
    """The command without a process of its own."""
    return invoke(app, "migrate", *arguments, env=_settings(url))


def _project_keys(database: Database) -> tuple[ApiKey, ...]:
    with database.read() as session:
        return api_keys.keys(session, "default")


def test_secrets_are_long_different_and_in_the_addresses(tmp_path: Path) -> None:
    create_secrets(tmp_path, DATABASE, REDIS)
    made = _contents(tmp_path)
    assert set(made) == FILES
    alone = {made["api/secret_key"], made["postgres/password"], made["redis/password"]}
    assert len(alone) == 3
    assert {len(secret) for secret in alone} == {64}
    assert make_url(made["shared/database_url"]).password == made["postgres/password"]
    assert make_url(made["shared/database_url"]).host == "postgres"
    assert made["shared/redis_url"] == f"redis://:{made['redis/password']}@redis:6379/0"
    assert made["redis/auth.conf"] == f"requirepass {made['redis/password']}"


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    create_secrets(tmp_path / "secrets", DATABASE, REDIS)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").rglob("*")}
    assert {modes[path] for path in modes if path.is_file()} == {0o600}
    assert {modes[path] for path in modes if path.is_dir()} == {0o700}


def test_a_second_start_keeps_every_secret(tmp_path: Path) -> None:
    create_secrets(tmp_path, DATABASE, REDIS)
    before = _contents(tmp_path)
    create_secrets(tmp_path, DATABASE, REDIS)
    assert _contents(tmp_path) == before


def test_a_start_that_was_cut_off_is_completed(tmp_path: Path) -> None:
    create_secrets(tmp_path, DATABASE, REDIS)
    before = _contents(tmp_path)
    for name in ("shared/database_url", "shared/redis_url", "redis/auth.conf"):
        (tmp_path / name).unlink()
    create_secrets(tmp_path, DATABASE, REDIS)
    assert _contents(tmp_path) == before


def test_an_address_may_change_and_the_password_stays(tmp_path: Path) -> None:
    create_secrets(tmp_path, DATABASE, REDIS)
    password = _contents(tmp_path)["postgres/password"]
    create_secrets(tmp_path, "postgresql+psycopg://me@[::1]:6432/other", REDIS)
    url = make_url(_contents(tmp_path)["shared/database_url"])
    assert (url.username, url.host, url.port, url.database) == ("me", "::1", 6432, "other")
    assert url.password == password


@pytest.mark.parametrize("wrong", ["postgres", "redis://:known@host/0", "redis:///0"])
def test_what_is_no_address_is_refused_with_a_remedy(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(UserError, match="Give scheme://user@host") as caught:
        create_secrets(tmp_path, DATABASE, wrong)
    assert caught.value.field == "--redis-url"


def test_the_command_prints_no_secret(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["secrets", "--folder", str(tmp_path)])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert set(_contents(tmp_path)) == FILES


def test_a_new_database_gets_tables_and_one_key_that_opens_everything(
    empty: URL, tmp_path: Path
) -> None:
    file = tmp_path / "admin" / "key"
    first = _run("migrate", "--key-file", str(file), **_settings(empty))
    assert first.returncode == 0, first.stderr
    key = file.read_text().strip()
    assert first.stdout.count(key) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    database = open_database(empty)
    assert current(database.engine) == HEAD
    with database.read() as session:
        row = api_keys.authenticate(session, SECRET.encode(), key)
    assert row is not None
    assert row.scopes == ["admin"]

    second = _migrate_here(empty, "--key-file", str(file))
    assert second.exit_code == 0, second.output
    assert "up to date" in second.stdout
    assert api_keys.PREFIX not in second.stdout
    assert file.read_text().strip() == key
    assert len(_project_keys(database)) == 1
    database.close()


def test_a_revoked_key_is_not_replaced(empty: URL) -> None:
    assert _migrate_here(empty).exit_code == 0
    database = open_database(empty)
    (row,) = _project_keys(database)
    database.transact(lambda session: api_keys.revoke(session, row.id, "default"))
    assert issue_first_key(database, SECRET.encode(), None) is None
    database.close()


def test_starts_at_the_same_time_make_one_key(empty: URL) -> None:
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "api.bootstrap", "migrate"],
            env={"PATH": os.defpath, **_settings(empty)},
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    printed = [command.communicate(timeout=100)[0] for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0]
    assert sum(api_keys.PREFIX in text for text in printed) == 1
    database = open_database(empty)
    assert len(_project_keys(database)) == 1
    database.close()


def test_without_a_secret_nothing_is_made(tmp_path: Path) -> None:
    done = _run("migrate", SHORTFT_DATABASE_URL=f"sqlite:///{tmp_path}/new.db")
    assert done.returncode == 2
    assert "SHORTFT_SECRET_KEY" in done.stderr
    assert not (tmp_path / "new.db").exists()
