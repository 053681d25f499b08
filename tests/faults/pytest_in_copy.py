"""`pytest_in_copy.py FOLDER WORD…`: pytest on a copy of the project, forked or started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def main(folder: Path, words: list[str]) -> int:
    """The exit code of pytest; what was imported of the project itself is forgotten before."""
    rooms = {path.name for path in folder.iterdir() if path.is_dir()} | {"api"}
    for name in [name for name in sys.modules if name.partition(".")[0] in rooms]:
        del sys.modules[name]
    # A file that changes within a second must not be taken from a cache.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    return pytest.main(words)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
