"""The only place of the core that reads the environment."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar

from platformdirs import user_cache_path
from pydantic import AfterValidator, AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shortft_core.errors import UserError

_PREFIX = "SHORTFT_"
_OFFLINE = (f"{_PREFIX}OFFLINE", "HF_HUB_OFFLINE")
_Settings = TypeVar("_Settings", bound=BaseSettings)
Folder = Annotated[Path, AfterValidator(Path.expanduser)]


class Settings(BaseSettings):
    """What differs between machines and belongs to no job; `SHORTFT_` before each name."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    cache_dir: Folder = Field(default_factory=lambda: user_cache_path("shortft"))
    """Where downloads are kept; hub repositories stay in the hub client's cache (HF_HOME)."""
    offline: bool = Field(default=False, validation_alias=AliasChoices(*_OFFLINE))
    """Whether downloads are refused at once; without it HF_HUB_OFFLINE decides."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes the first accelerator, else the CPU."""


@cache
def settings() -> Settings:
    """The settings of this process, read once; raises UserError naming the variable."""
    return read_settings(Settings)


def read_settings(kind: type[_Settings]) -> _Settings:
    """Settings of the environment, whichever room they are of; raises UserError for a wrong one."""
    try:
        return kind()
    except ValidationError as error:
        first = error.errors()[0]
        variable = _variable(kind, str(first["loc"][0]))
        raise UserError(variable, first["msg"], f"Correct or unset {variable}") from error


def _variable(kind: type[BaseSettings], name: str) -> str:
    """The environment variable that a mistake is about; all of them where there are several."""
    for field in kind.model_fields.values():
        alias = field.validation_alias
        # pydantic-settings reports the first alias, whichever of them was set.
        if isinstance(alias, AliasChoices) and name in alias.choices:
            return " or ".join(map(str, alias.choices))
    return f"{_PREFIX}{name.upper()}" if name in kind.model_fields else name
