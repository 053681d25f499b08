from __future__ import annotations

import asyncio
import time

import pytest

from store import live


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SHORTEST_WAIT_SECONDS", 0.005)
    monkeypatch.setattr(live, "LONGEST_WAIT_SECONDS", 0.02)


def test_until_gives_what_is_found_or_nothing() -> None:
    looks: list[float] = []

    def third_time() -> str | None:
        looks.append(time.monotonic())
        return "found" if len(looks) == 3 else None

    assert asyncio.run(live.until(third_time, timeout_seconds=10.0)) == "found"
    started = time.monotonic()
    assert asyncio.run(live.until(lambda: None, timeout_seconds=0.1)) is None
    assert time.monotonic() - started >= 0.1


def test_until_looks_once_even_without_time() -> None:
    assert asyncio.run(live.until(lambda: "there", timeout_seconds=0.0)) == "there"
