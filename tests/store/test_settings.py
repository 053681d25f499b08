from __future__ import annotations

from pathlib import Path

import pytest

from shortft_core.errors import UserError
from store.engine import open_database
from store.objects import FolderStore, open_objects
from store.settings import StoreSettings, store_settings

NAMES = (
    "DATA_DIR", "DATABASE_URL", "DATABASE_URL_FILE", "STORAGE_URL", "SECRET_KEY", "REDIS_URL",
    "REDIS_URL_FILE", "LEASE_SECONDS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "SECRET_KEY_FILE"):
        monkeypatch.delenv(f"SHORTFT_{name}", raising=False)
    store_settings.cache_clear()


def test_without_settings_everything_is_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORTFT_DATA_DIR", str(tmp_path))
    found = store_settings()
    database = open_database(found.database_address())
    assert database.engine.url.database == str(tmp_path / "shortft.db")
    objects = open_objects(found.storage_address())
    assert isinstance(objects, FolderStore)
    assert objects.root == tmp_path / "objects"
    assert found.redis_address() is None
    assert found.message_folder() == tmp_path / "mq"


def test_addresses_are_taken_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORTFT_DATABASE_URL", "postgresql+psycopg://u:secret@h/d")
    monkeypatch.setenv("SHORTFT_STORAGE_URL", "s3://bucket/prefix")
    found = store_settings()
    assert found.database_address() == "postgresql+psycopg://u:secret@h/d"
    assert found.storage_address() == "s3://bucket/prefix"
    assert "secret@h" not in repr(found)


def test_a_mounted_secret_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("x" * 40 + "\n")
    monkeypatch.setenv("SHORTFT_SECRET_KEY_FILE", str(file))
    assert store_settings().secret() == b"x" * 40


def test_the_brokers_address_is_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "redis"
    file.write_text("redis://:word@h:6379/0\n")
    found = StoreSettings.model_validate({"redis_url_file": file})
    assert found.redis_address() == "redis://:word@h:6379/0"
    given = StoreSettings.model_validate({"redis_url": "redis://:word@h:6379/1"})
    assert given.redis_address() == "redis://:word@h:6379/1"
    assert "word" not in repr(given)


def test_times_are_those_measured_as_sufficient(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("lease", "heartbeat", "sweep", "wake_again", "backoff")
    found = store_settings()
    assert [getattr(found, f"{name}_seconds") for name in names] == [90, 15, 10, 15, 5]
    monkeypatch.setenv("SHORTFT_LEASE_SECONDS", "0")
    store_settings.cache_clear()
    with pytest.raises(UserError, match="SHORTFT_LEASE_SECONDS: Input should be greater than 0"):
        store_settings()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "SHORTFT_SECRET_KEY: it is not set"),
        ({"secret_key": "short"}, "shorter than 32 characters"),
        ({"secret_key": "x" * 40, "secret_key_file": "a"}, "SHORTFT_SECRET_KEY_FILE is set too"),
        ({"secret_key_file": "/no/such/file"}, "SHORTFT_SECRET_KEY_FILE: .* cannot be read"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused(fields: dict[str, str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        StoreSettings.model_validate(fields).secret()
