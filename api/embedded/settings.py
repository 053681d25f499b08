"""The only place of the embedded service that reads the environment: its children inherit it."""

from __future__ import annotations

import os
from collections.abc import Mapping


def environment(fixed: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """This process's environment: `fixed` is replaced in it, `defaults` only where it is silent."""
    return {**defaults, **os.environ, **fixed}
