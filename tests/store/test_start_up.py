from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

IMPORT_ALL: Final = """
import importlib, pkgutil, sys
import migrations.run, store
for found in pkgutil.walk_packages(store.__path__, "store."):
    importlib.import_module(found.name)
print(*sorted(sys.modules))
"""
HEAVY: Final = {"torch", "diffusers", "transformers", "celery", "fastapi", "redis", "starlette"}


def test_the_store_starts_without_torch_queue_and_web() -> None:
    command = [sys.executable, "-c", IMPORT_ALL]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"store.leases", "store.models.jobs", "shortft_core.spec"} <= loaded
    assert loaded.isdisjoint(HEAVY)
    # One database's driver is loaded when its address is opened, not before.
    assert "psycopg" not in loaded
