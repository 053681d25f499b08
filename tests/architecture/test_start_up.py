"""Everything above the torch line starts without torch, whether or not torch is installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

# The import contract cannot see `import torch` in a package's `__init__`, because importing a
# submodule is not counted as importing its parent; only a fresh interpreter can.
IMPORT_ALL: Final = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        importlib.import_module(found.name)
print(*sorted(sys.modules))
"""

HELP_WITHOUT_TORCH: Final = """
import sys
heavy, sys.argv = sys.argv[1:], ["shortft", "--help"]
sys.modules.update(dict.fromkeys(heavy))
from shortft_core.cli import app
app()
"""


def _torch_line(root: Path) -> dict[str, Any]:
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return next(contract for contract in contracts if "torch line" in contract["name"])


def _run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_torch_above_the_line(root: Path) -> None:
    line = _torch_line(root)
    loaded = _run(IMPORT_ALL, *line["source_modules"], "shortft_core.cli").split()
    assert "shortft_core.catalog" in loaded
    assert [name for name in line["forbidden_modules"] if name in loaded] == []


def test_help_needs_no_torch(root: Path) -> None:
    text = _run(HELP_WITHOUT_TORCH, *_torch_line(root)["forbidden_modules"])
    assert "train" in text
    assert "generate" in text


def test_core_package_file_is_empty(root: Path) -> None:
    assert (root / "shortft_core" / "__init__.py").read_bytes() == b""
