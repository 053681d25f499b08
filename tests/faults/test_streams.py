"""Event streams that readers and the API cut off all the time: no gap, and no repeat."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx2

from shortft_core.events import LogLine
from store import events, leases
from store.settings import StoreSettings
from tests.faults import invariants
from tests.faults.harness import Service, forked_service
from tests.faults.http import TLS, Api, served

CLIENTS: Final = 6
EVENTS: Final = 60
_ID: Final = "id: "


@contextmanager
def told(running: Service, job_id: str) -> Iterator[None]:
    """A thread that writes the events of a job while the block runs, and ends the job."""
    claim = running.database.transact(
        lambda session: leases.claim(session, "writer", ["default"], lease_seconds=3600.0)
    )
    assert claim is not None
    assert claim.job.id == job_id
    lease = claim.lease

    def write() -> None:
        pause = threading.Event()
        for number in range(EVENTS):
            pause.wait(0.02)
            line = LogLine(message=f"line {number}")
            running.database.transact(partial(events.append, lease=lease, events=[line]))
        running.database.transact(
            lambda session: leases.fail(session, lease, leases.Report(error_code="internal"))
        )

    writer = threading.Thread(target=write)
    writer.start()
    yield
    writer.join()


async def follow(client: httpx2.AsyncClient, job_id: str, draw: random.Random) -> list[int]:
    """The numbers that one reader was told, over all its connections."""
    seen: list[int] = []
    while True:
        headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
        leaves_after = draw.randint(1, 16)
        try:
            async with client.stream(
                "GET", f"/jobs/{job_id}/events/stream", headers=headers
            ) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith(_ID):
                        seen.append(int(line.removeprefix(_ID)))
                        leaves_after -= 1
                    if line == "event: done":
                        return seen
                    if leaves_after == 0:
                        break
        except httpx2.TransportError:
            await asyncio.sleep(0.05)


async def follow_all(api: Api, job_id: str, kills: list[int]) -> list[list[int]]:
    """What each reader was told; meanwhile the API is killed and started again."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=api.url, timeout=60.0, limits=limits, verify=TLS
    ) as client:
        readers = [
            asyncio.create_task(follow(client, job_id, random.Random(number)))
            for number in range(CLIENTS)
        ]
        for at in kills:
            await asyncio.to_thread(api.service.until, partial(_has_events, api, job_id, at))
            await asyncio.to_thread(api.kill)
            await asyncio.to_thread(api.start)
        return await asyncio.gather(*readers)


def _has_events(api: Api, job_id: str, count: int) -> bool:
    return api.service.job(job_id).event_seq >= count


def test_readers_that_are_cut_off_miss_and_repeat_nothing(
    stack: StoreSettings, tmp_path: Path
) -> None:
    with forked_service(stack, tmp_path) as running, served(running) as api:
        job_id = running.create()
        with told(running, job_id):
            seen = asyncio.run(follow_all(api, job_id, [15, 35]))
        invariants.check_history(running, job_id)
        last = running.job(job_id).event_seq
    # Created, claimed, and failed, besides the lines.
    assert last == EVENTS + 3
    assert len(seen) == CLIENTS
    assert all(numbers == list(range(1, last + 1)) for numbers in seen)
