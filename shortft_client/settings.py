"""The only place of the client that reads the environment."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shortft_core.errors import UserError
from shortft_core.settings import read_settings

_PREFIX: Final = "SHORTFT_"
_OF_A_SERVICE: Final = tuple(
    f"{_PREFIX}{name}{form}"
    for name in ("DATABASE_URL", "STORAGE_URL", "REDIS_URL", "SECRET_KEY")
    for form in ("", "_FILE")
)
Folder = Annotated[Path, AfterValidator(Path.expanduser)]


class ClientSettings(BaseSettings):
    """Which service is asked, and with which key; `SHORTFT_` before each name."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    server: str = Field(default="http://127.0.0.1:8000", pattern=r"^https?://[^\s?#]+$")
    """Address of the service."""
    api_key: SecretStr | None = None
    """A key of the service; none is needed on the service's own machine while it has no keys."""
    api_key_file: Folder | None = None
    """A file that holds `api_key`."""

    def key(self) -> str | None:
        """The API key, if there is one; raises UserError for a file that cannot be read."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        if self.api_key_file is None:
            return None
        try:
            return self.api_key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UserError(
                f"{_PREFIX}API_KEY_FILE", f"{self.api_key_file} cannot be read", "Correct the path"
            ) from error


@cache
def client_settings() -> ClientSettings:
    """The settings of this process, read once; raises UserError naming the variable."""
    return read_settings(ClientSettings)


def apart_from_services() -> dict[str, str]:
    """This process's environment without what names the rows, objects and keys of a service."""
    return {name: value for name, value in os.environ.items() if name.upper() not in _OF_A_SERVICE}
