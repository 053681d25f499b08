from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shortft_core.errors import UserError
from shortft_core.settings import read_settings, settings

NAMES = ("SHORTFT_CACHE_DIR", "SHORTFT_OFFLINE", "SHORTFT_DEVICE")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in (*NAMES, "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


def test_defaults_need_no_environment() -> None:
    found = settings()
    assert found.cache_dir.name == "shortft"
    assert found.cache_dir.is_absolute()
    assert (found.offline, found.device) == (False, "auto")


def test_every_setting_has_its_variable(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("SHORTFT_CACHE_DIR", str(tmp_path))
    environment.setenv("SHORTFT_OFFLINE", "yes")
    environment.setenv("SHORTFT_DEVICE", "cuda:1")
    found = settings()
    assert found.cache_dir == tmp_path
    assert found.offline
    assert found.device == "cuda:1"


@pytest.mark.parametrize(
    ("ours", "hub", "expected"),
    [
        (None, "1", True),
        (None, "0", False),
        ("0", "1", False),
        ("1", "0", True),
        ("", "1", True),
    ],
)
def test_the_hub_switch_counts_unless_ours_is_set(
    environment: pytest.MonkeyPatch, ours: str | None, hub: str, *, expected: bool
) -> None:
    if ours is not None:
        environment.setenv("SHORTFT_OFFLINE", ours)
    environment.setenv("HF_HUB_OFFLINE", hub)
    assert settings().offline is expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SHORTFT_OFFLINE", "perhaps"), ("HF_HUB_OFFLINE", "perhaps"), ("SHORTFT_DEVICE", "gpu")],
)
def test_a_bad_value_names_its_variable(
    environment: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    environment.setenv(variable, value)
    with pytest.raises(UserError) as caught:
        settings()
    assert variable in caught.value.field.split(" or ")
    assert variable in caught.value.remedy


def test_they_are_read_once_and_cannot_be_changed(environment: pytest.MonkeyPatch) -> None:
    before = settings()
    environment.setenv("SHORTFT_DEVICE", "cpu")
    assert settings() is before
    with pytest.raises(ValidationError, match="frozen"):
        before.device = "cpu"  # type: ignore[misc]


class _Room(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHORTFT_")

    doors: int = 1
    windows: int = Field(default=1, validation_alias="WINDOWS")


@pytest.mark.parametrize("variable", ["SHORTFT_DOORS", "WINDOWS"])
def test_a_mistake_in_any_room_names_the_variable_itself(
    environment: pytest.MonkeyPatch, variable: str
) -> None:
    assert read_settings(_Room) == _Room(doors=1)
    environment.setenv(variable, "many")
    with pytest.raises(UserError, match=f"^{variable}: .*Correct or unset {variable}"):
        read_settings(_Room)
