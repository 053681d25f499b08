"""Records the golden traces anew: `make golden`. Read the difference before you commit it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from tests.golden.traces import FOLDER, METHODS, record


def main() -> None:
    """One JSON file per method, computed on one thread in float64."""
    torch.set_num_threads(1)
    for name in METHODS:
        with tempfile.TemporaryDirectory() as scratch:
            trace = record(name, Path(scratch))
        (FOLDER / f"{name}.json").write_text(json.dumps(trace, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
