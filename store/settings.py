"""The only place of the store that reads the environment."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Final

from platformdirs import user_data_path
from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shortft_core.errors import UserError
from shortft_core.settings import read_settings

_PREFIX: Final = "SHORTFT_"
_SHORTEST_SECRET: Final = 32
Folder = Annotated[Path, AfterValidator(Path.expanduser)]


class StoreSettings(BaseSettings):
    """Where rows, objects and messages are, and their times; `SHORTFT_` before each name."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: Folder = Field(default_factory=lambda: user_data_path("shortft"))
    """Folder of a service on one machine: its database, its objects and its messages."""
    database_url: SecretStr | None = None
    """`postgresql+psycopg://…` or `sqlite:////file`; by default a file in `data_dir`."""
    database_url_file: Folder | None = None
    """A file that holds `database_url`, for secrets that are mounted."""
    storage_url: str | None = None
    """`s3://bucket/prefix` or `file:///folder`; by default a folder in `data_dir`."""
    secret_key: SecretStr | None = None
    """At least 32 characters; API keys are hashed with it."""
    secret_key_file: Folder | None = None
    """A file that holds `secret_key`."""
    redis_url: SecretStr | None = None
    """`redis://:password@host:6379/0`; by default messages are files in `data_dir`."""
    redis_url_file: Folder | None = None
    """A file that holds `redis_url`."""
    lease_seconds: float = Field(default=90.0, gt=0)
    """How long a worker holds a row without renewing it."""
    heartbeat_seconds: float = Field(default=15.0, gt=0, lt=45)
    """How often a worker renews what it holds, and says that it lives; after 45 s without it counts
    as lost."""
    sweep_seconds: float = Field(default=10.0, gt=0)
    """How often each process looks for expired leases and for rows that nobody was told of."""
    wake_again_seconds: float = Field(default=15.0, gt=0)
    """How long a due row waits before workers are told of it again."""
    backoff_seconds: float = Field(default=5.0, ge=0)
    """Wait after a job's first failed attempt; doubles with each further one."""

    def database_address(self) -> str:
        """The address of the database; raises UserError for a file that cannot be read."""
        given = _secret(self.database_url, self.database_url_file, "database_url")
        return given or f"sqlite:///{self.data_dir.absolute() / 'shortft.db'}"

    def storage_address(self) -> str:
        """The address of the objects."""
        return self.storage_url or (self.data_dir.absolute() / "objects").as_uri()

    def redis_address(self) -> str | None:
        """The address of the broker's Redis; None where messages are files."""
        return _secret(self.redis_url, self.redis_url_file, "redis_url")

    def message_folder(self) -> Path:
        """Where messages are files."""
        return self.data_dir.absolute() / "mq"

    def secret(self) -> bytes:
        """The server's secret; raises UserError where there is none, or a short one."""
        variable = f"{_PREFIX}SECRET_KEY"
        given = _secret(self.secret_key, self.secret_key_file, "secret_key")
        if given is None:
            raise UserError(variable, "it is not set", f"Set it, or {variable}_FILE")
        if len(given) < _SHORTEST_SECRET:
            raise UserError(
                variable,
                f"it is shorter than {_SHORTEST_SECRET} characters",
                "Take one from `openssl rand -hex 32`",
            )
        return given.encode()


@cache
def store_settings() -> StoreSettings:
    """The settings of this process, read once; raises UserError naming the variable."""
    return read_settings(StoreSettings)


def _secret(value: SecretStr | None, file: Path | None, name: str) -> str | None:
    variable = f"{_PREFIX}{name.upper()}"
    if value is not None and file is not None:
        raise UserError(variable, f"{variable}_FILE is set too", "Unset one of them")
    if value is not None:
        return value.get_secret_value()
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"{variable}_FILE", f"{file} cannot be read", "Correct the path") from error
