from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL, event

from shortft_core.events import LogLine
from store import events, feed, results
from store.engine import Database, open_database
from store.feed import Feed
from store.transitions import Lease

if TYPE_CHECKING:
    from tests.store.conftest import Bench

TICK_SECONDS = 0.01


async def _collect(watched: Feed, job_id: str, after: int = 0) -> list[int]:
    return [event.seq async for event in watched.follow(job_id, after)]


def _feed(database: Database) -> Feed:
    return Feed(database, look_every_seconds=TICK_SECONDS)


def _append(database: Database, lease: Lease, count: int) -> None:
    with database.write() as session:
        events.append(session, lease, [LogLine(message=str(number)) for number in range(count)])


def _write(url: URL, lease: Lease, count: int) -> None:
    database = open_database(url)
    for _ in range(count):
        _append(database, lease, 1)
        time.sleep(0.003)
    database.transact(lambda session: results.succeed(session, lease, []))
    database.close()


def test_every_reader_sees_every_event_once_until_the_job_ends(bench: Bench, url: URL) -> None:
    jobs = [bench.create() for _ in range(2)]
    writers = [threading.Thread(target=_write, args=(url, bench.claim().lease, 20)) for _ in jobs]

    async def watch() -> tuple[list[list[int]], int]:
        watched = _feed(bench.database)
        for writer in writers:
            writer.start()
        seen = await asyncio.gather(*(_collect(watched, job.id) for job in jobs for _ in range(5)))
        return seen, watched.watchers

    seen, left = asyncio.run(watch())
    for writer in writers:
        writer.join()
    assert seen == [list(range(1, 24))] * 10
    assert left == 0


def test_a_reader_that_was_cut_off_goes_on(bench: Bench, url: URL) -> None:
    job = bench.create()
    _write(url, bench.claim().lease, 5)
    assert asyncio.run(_collect(_feed(bench.database), job.id, after=3)) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("after", [3, 99])
def test_behind_the_end_there_is_nothing_to_wait_for(bench: Bench, url: URL, after: int) -> None:
    job = bench.create()
    _write(url, bench.claim().lease, 0)
    assert asyncio.run(_collect(_feed(bench.database), job.id, after)) == []


def test_a_long_history_is_read_page_by_page(
    bench: Bench, url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_PAGE", 4)
    job = bench.create()
    _write(url, bench.claim().lease, 10)
    assert asyncio.run(_collect(_feed(bench.database), job.id)) == list(range(1, 14))


def test_a_slow_reader_misses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_MOST_WAITING", 2)
    job = bench.create()
    lease = bench.claim().lease

    async def watch() -> list[int]:
        seen: list[int] = []
        async for found in _feed(bench.database).follow(job.id):
            seen.append(found.seq)
            if found.seq == 2:
                for _ in range(8):
                    _append(bench.database, lease, 3)
                    await asyncio.sleep(2 * TICK_SECONDS)
                bench.database.transact(lambda session: results.succeed(session, lease, []))
        return seen

    assert asyncio.run(watch()) == list(range(1, 28))


def test_many_readers_cost_as_many_looks_as_one(bench: Bench) -> None:
    job = bench.create()
    statements: list[str] = []
    event.listen(
        bench.database.engine,
        "before_cursor_execute",
        lambda _c, _u, statement, *_: statements.append(statement),
    )

    async def watch(readers: int) -> int:
        watched = _feed(bench.database)
        tasks = [asyncio.create_task(_collect(watched, job.id)) for _ in range(readers)]
        await asyncio.sleep(0.2)
        statements.clear()
        await asyncio.sleep(0.2)
        made = sum("job_events" in statement or "jobs" in statement for statement in statements)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return made

    alone, together = asyncio.run(watch(1)), asyncio.run(watch(30))
    assert alone > 0
    assert together < 3 * alone
