"""Callers of the API: each request leaves at its own time, whether or not others were answered.

Latencies count from the planned time, so a server that falls behind cannot hide it by answering
later callers quickly.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import httpx2

from benchmarks.service.connections import Answer, Connections

_TIMEOUT_SECONDS: Final = 30.0
_EVENT_ID: Final = "id:"
_REFUSED: Final = 400

Send = Callable[[], Awaitable[Answer]]


@dataclass(kw_only=True, slots=True)
class Tally:
    """What became of the requests of one kind."""

    latencies_seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Seconds within which this share of the answers came; raises IndexError for none."""
        ordered = sorted(self.latencies_seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(kw_only=True, slots=True)
class Stream:
    """One open event stream: the numbers it saw, and when its job's events came."""

    job_id: str
    seen: list[int] = field(default_factory=list)
    error: str | None = None

    def missed(self, last: int) -> int:
        """How many of the events 1 to `last` it did not see exactly once and in order."""
        return sum(seen != wanted for seen, wanted in zip_longest(self.seen, range(1, last + 1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """How many callers, for how long."""

    base_url: str
    keys: Sequence[str]
    """API keys of the callers."""
    seconds: float = 60.0
    polls_per_second: float = 200.0
    submissions_per_second: float = 20.0
    streams: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What the callers saw."""

    polls: Tally
    submissions: Tally
    streams: tuple[Stream, ...]


async def drive(
    traffic: Traffic,
    followed: Sequence[str],
    spec: Mapping[str, Any],
    settle: Callable[[], Awaitable[None]],
) -> Outcome:
    """Polls `followed` jobs, submits `spec`, and keeps streams open on the jobs meanwhile.

    `settle` is awaited after the callers and before the streams are closed.
    """
    limits = httpx2.Limits(max_connections=None)
    address = httpx2.URL(traffic.base_url)
    connections = Connections(address.host, address.port or 80)
    headers = [{"X-API-Key": key} for key in traffic.keys]
    polls = [
        connections.prepared("GET", f"/jobs/{job_id}", shown)
        for job_id in followed
        for shown in headers
    ]
    submissions = [connections.prepared("POST", "/jobs", shown, spec) for shown in headers]
    polled, submitted = Tally(), Tally()
    async with httpx2.AsyncClient(
        base_url=address, headers=headers[0], limits=limits, timeout=_TIMEOUT_SECONDS
    ) as client:
        streams = tuple(
            Stream(job_id=followed[index % len(followed)]) for index in range(traffic.streams)
        )
        following = [asyncio.create_task(_follow(client, stream)) for stream in streams]
        await asyncio.gather(
            _paced(
                lambda: connections.send(random.choice(polls)),
                traffic.polls_per_second,
                traffic.seconds,
                polled,
            ),
            _paced(
                lambda: connections.send(random.choice(submissions)),
                traffic.submissions_per_second,
                traffic.seconds,
                submitted,
            ),
        )
        connections.close()
        await settle()
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    return Outcome(polls=polled, submissions=submitted, streams=streams)


async def _paced(send: Send, per_second: float, seconds: float, tally: Tally) -> None:
    began = time.perf_counter()
    pending = []
    for number in range(int(per_second * seconds)):
        planned = began + number / per_second
        # All that is due leaves in one turn of the loop, however many turns others take.
        if (early := planned - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        pending.append(asyncio.create_task(_timed(send, planned, tally)))
    await asyncio.gather(*pending)


async def _timed(send: Send, planned: float, tally: Tally) -> None:
    try:
        answer = await asyncio.wait_for(send(), _TIMEOUT_SECONDS)
    except (OSError, EOFError) as error:  # a timeout is an OSError
        tally.errors.append(repr(error))
        return
    if answer.status < _REFUSED:
        tally.latencies_seconds.append(time.perf_counter() - planned)
    else:
        tally.errors.append(f"{answer.status} {answer.body[:200]!r}")


async def _follow(client: httpx2.AsyncClient, stream: Stream) -> None:
    try:
        async with client.stream("GET", f"/jobs/{stream.job_id}/events/stream") as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith(_EVENT_ID):
                    stream.seen.append(int(line.removeprefix(_EVENT_ID)))
        stream.error = "the server closed it"
    except httpx2.HTTPError as error:
        stream.error = repr(error)
