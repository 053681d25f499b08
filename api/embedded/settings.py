"""The only place of the embedded service that reads the environment: its children inherit it."""

from __future__ import annotations

import os
from collections.abc import Mapping


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with additions; variables that are set keep their values."""
    return {**extra, **os.environ}


def overridden(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with replacements."""
    return {**os.environ, **extra}
