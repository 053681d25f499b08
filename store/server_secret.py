"""The secret that a data folder keeps for the service in it, where nobody gave another."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

_SECRET_BYTES: Final = 32


def secret_file(folder: Path) -> Path:
    """The file with the server's secret, made where it is absent; only its owner may read it."""
    path = folder / "secret_key"
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_hex(_SECRET_BYTES)}\n")
    return path
