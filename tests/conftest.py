"""What every test may rely on: no hub, one thread, and caches that belong to this run alone."""

from __future__ import annotations

import atexit
import os
import tempfile

import hypothesis
import pytest

_CACHE = tempfile.TemporaryDirectory(prefix="shortft-tests-")
atexit.register(_CACHE.cleanup)

# Before anything imports torch or the hub's client, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = _CACHE.name
os.environ["SHORTFT_CACHE_DIR"] = _CACHE.name
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

# A shared machine makes single examples slow, and a run has to be repeatable.
hypothesis.settings.register_profile("shortft", deadline=None, derandomize=True)
hypothesis.settings.load_profile("shortft")

# The servers that tests of the service run on; each starts when a test first asks for it.
pytest_plugins = ["tests.servers.postgresql", "tests.servers.redis", "tests.servers.stack"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that ask for a long time, so that none is alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("timeout") is not None}
    items.sort(key=lambda item: item.path not in slow)
