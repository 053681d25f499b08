"""A train station in the test's own process, on both stacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.settings import StoreSettings
from tests.faults.harness import Service, service


@pytest.fixture
def running(stack: StoreSettings, tmp_path: Path) -> Iterator[Service]:
    """Rows, objects and a way to make jobs; no worker process."""
    with service(stack, tmp_path) as found:
        yield found
