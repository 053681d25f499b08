from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL

from shortft_core.events import LogLine
from store import events, live, results
from store.engine import Database, open_database
from store.transitions import Lease

if TYPE_CHECKING:
    from tests.store.conftest import Bench


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SHORTEST_WAIT_SECONDS", 0.005)
    monkeypatch.setattr(live, "LONGEST_WAIT_SECONDS", 0.02)


async def _collect(database: Database, job_id: str, after: int = 0) -> list[int]:
    return [event.seq async for event in live.follow(database, job_id, after)]


def _write(url: URL, lease: Lease, count: int) -> None:
    database = open_database(url)
    for number in range(count):
        with database.write() as session:
            events.append(session, lease, [LogLine(message=str(number))])
        time.sleep(0.003)
    database.transact(lambda session: results.succeed(session, lease, []))
    database.close()


def test_a_reader_follows_until_the_job_ends(bench: Bench, url: URL) -> None:
    job = bench.create()
    lease = bench.claim().lease
    writer = threading.Thread(target=_write, args=(url, lease, 20))
    writer.start()
    seen = asyncio.run(_collect(bench.database, job.id))
    writer.join()
    assert seen == list(range(1, 24))


def test_a_reader_that_was_cut_off_goes_on(bench: Bench, url: URL) -> None:
    job = bench.create()
    _write(url, bench.claim().lease, 5)
    assert asyncio.run(_collect(bench.database, job.id, after=3)) == [4, 5, 6, 7, 8]


def test_a_waiting_reader_can_be_stopped(bench: Bench) -> None:
    job = bench.create()
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(_collect(bench.database, job.id), timeout=0.1))


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
