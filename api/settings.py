"""The only place of the HTTP interface that reads the environment."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shortft_core.catalog import BASE_MODELS
from shortft_core.settings import read_settings
from shortft_core.spec.common import HUB_ID

_PREFIX: Final = "SHORTFT_"


def _split(given: object) -> object:
    return [part.strip() for part in given.split(",")] if isinstance(given, str) else given


def _model(given: str) -> str:
    if given not in BASE_MODELS and re.fullmatch(HUB_ID, given) is None:
        known = ", ".join(BASE_MODELS)
        raise ValueError(f"{given!r} is no base model of the catalog ({known}) and no hub id")
    return given


Folder = Annotated[Path, AfterValidator(Path.expanduser)]
ModelList = Annotated[
    tuple[Annotated[str, AfterValidator(_model)], ...] | None, NoDecode, BeforeValidator(_split)
]


class ApiSettings(BaseSettings):
    """How the service answers HTTP; `SHORTFT_` before each name."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on; one that others can reach needs an API key first."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""
    public_url: str | None = Field(default=None, pattern=r"^https?://[^\s?#]+$")
    """Address under which clients see the service, for the URLs in answers."""
    max_body_mb: float = Field(default=32.0, gt=0)
    """Largest request body, uploads included."""
    model_dir: Folder | None = None
    """Folder below which jobs may name files by `path`; none by default."""
    allowed_base_models: ModelList = None
    """Base models that may be used, by catalog names and hub ids with commas between; beside it,
    other weights may come from these hub ids alone. Without it every model may be used."""
    log_format: Literal["console", "json"] = "console"
    """Lines for people, or one JSON object a line."""
    shutdown_seconds: int = Field(default=5, ge=1)
    """How long open requests and streams may go on after SIGTERM."""
    requests_per_minute: int = Field(default=600, ge=1)
    """Of one API key."""
    most_open_jobs: int = Field(default=100, ge=1)
    """Unfinished jobs of one API key."""
    most_open_generations: int = Field(default=100, ge=1)
    """Unfinished generations and scores of one API key."""
    most_streams: int = Field(default=32, ge=1)
    """Event streams that one API key may have open."""
    stream_seconds: float = Field(default=600.0, gt=0)
    """After this time an event stream ends, and its reader connects again."""
    metrics_token: SecretStr | None = None
    """Bearer token for `/metrics`, beside keys of scope admin; needed even before the first key."""
    hub_home: Folder = Field(
        default=Path("~/.cache/huggingface"), validation_alias="HF_HOME", validate_default=True
    )
    """Folder of the hub client, where downloaded models are looked for."""
    hub_cache: Folder | None = Field(default=None, validation_alias="HF_HUB_CACHE")
    """Its cache, where that is elsewhere."""

    def hub_folder(self) -> Path:
        """Where the hub client keeps repositories."""
        return self.hub_cache or self.hub_home / "hub"


@cache
def api_settings() -> ApiSettings:
    """The settings of this process, read once; raises UserError naming the variable."""
    return read_settings(ApiSettings)
