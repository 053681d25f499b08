"""The command line that the training scripts of this folder share."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Final, NamedTuple

VAE_FOLDER: Final = Path("shapes/out/vae")


class Folders(NamedTuple):
    """Where a training writes, and the VAE it looks through."""

    to: Path
    vae: Path


def folders(description: str | None, to: Path) -> Folders:
    """Turns logging on and reads `--to` and `--vae`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--to", type=Path, default=to, help="folder to write")
    parser.add_argument("--vae", type=Path, default=VAE_FOLDER, help="folder of the trained VAE")
    options = parser.parse_args()
    return Folders(options.to, options.vae)
