"""The only place of the embedded service that reads the environment: its children inherit it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shortft_core.settings import read_settings

_REST_SECONDS: Final = 30
"""What a worker may take beside its work: its broker, its sweeper and its goodbye."""


class EmbeddedSettings(BaseSettings):
    """What its workers are told that the service has to know too."""

    model_config = SettingsConfigDict(
        env_prefix="SHORTFT_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    grace_seconds: float = Field(default=60.0, gt=0, allow_inf_nan=False)

    @property
    def stop_seconds(self) -> int:
        """How long a child may take to end before it is killed."""
        # Twice, as in a worker: its trainer may take one grace to save, its database another.
        return math.ceil(2 * self.grace_seconds) + _REST_SECONDS


def embedded_settings() -> EmbeddedSettings:
    """The settings as they are now; raises UserError naming the variable."""
    return read_settings(EmbeddedSettings)


def environment(fixed: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """This process's environment: `fixed` is replaced in it, `defaults` only where it is silent."""
    return {**defaults, **os.environ, **fixed}
