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
from itertools import cycle, zip_longest
from typing import Any, Final

import httpx2

from benchmarks.service.connections import Connections

_TIMEOUT_SECONDS: Final = 30.0
_EVENT_ID: Final = "id:"
_REFUSED: Final = 400

_KEY_HEADER: Final = "X-API-Key"
_Request = tuple[Connections, bytes]


@dataclass(kw_only=True, slots=True)
class Tally:
    """What became of the requests of one kind."""

    latencies_seconds: list[float] = field(default_factory=list)
    cold_latencies_seconds: list[float] = field(default_factory=list)
    """Of the warm-up."""
    errors: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many were sent."""
        return len(self.latencies_seconds) + len(self.cold_latencies_seconds) + len(self.errors)


def percentile(latencies: Sequence[float], share: float) -> float:
    """Seconds within which this share of the answers came; raises IndexError for none."""
    ordered = sorted(latencies)
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

    base_urls: Sequence[str]
    """Processes of the API, which share the requests as behind a balancer."""
    keys: Sequence[str]
    """API keys of the callers."""
    seconds: float = 60.0
    warm_up_seconds: float = 10.0
    """Of the same traffic before: its errors count, its latencies are kept apart."""
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
    doors = [Connections(*_address(url)) for url in traffic.base_urls]
    polls, submissions = _requests(doors, traffic.keys, followed, spec)
    polled, submitted = Tally(), Tally()
    async with httpx2.AsyncClient(
        headers={_KEY_HEADER: traffic.keys[0]},
        limits=httpx2.Limits(max_connections=None),
        timeout=_TIMEOUT_SECONDS,
    ) as client:
        streams = tuple(
            Stream(job_id=followed[index % len(followed)]) for index in range(traffic.streams)
        )
        following = [
            asyncio.create_task(_follow(client, url, stream))
            for url, stream in zip(cycle(traffic.base_urls), streams, strict=False)
        ]
        await asyncio.gather(
            _paced(polls, traffic.polls_per_second, traffic, polled),
            _paced(submissions, traffic.submissions_per_second, traffic, submitted),
        )
        for door in doors:
            door.close()
        await settle()
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    return Outcome(polls=polled, submissions=submitted, streams=streams)


def _requests(
    doors: Sequence[Connections],
    keys: Sequence[str],
    followed: Sequence[str],
    spec: Mapping[str, Any],
) -> tuple[list[_Request], list[_Request]]:
    """Every poll and every submission there can be."""
    callers = [(door, {_KEY_HEADER: key}) for door in doors for key in keys]
    polls = [
        (door, door.prepared("GET", f"/jobs/{job_id}", shown))
        for door, shown in callers
        for job_id in followed
    ]
    return polls, [(door, door.prepared("POST", "/jobs", shown, spec)) for door, shown in callers]


def _address(url: str) -> tuple[str, int]:
    parsed = httpx2.URL(url)
    return parsed.host, parsed.port or 80


async def _paced(
    requests: Sequence[_Request], per_second: float, traffic: Traffic, tally: Tally
) -> None:
    """Sends any of the requests at each of its times."""
    began = time.perf_counter()
    pending = []
    for number in range(int(per_second * (traffic.warm_up_seconds + traffic.seconds))):
        after = number / per_second
        is_cold = after < traffic.warm_up_seconds
        latencies = tally.cold_latencies_seconds if is_cold else tally.latencies_seconds
        # All that is due leaves in one turn of the loop, however many turns others take.
        if (early := began + after - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        sent = _timed(random.choice(requests), began + after, latencies, tally.errors)
        pending.append(asyncio.create_task(sent))
    await asyncio.gather(*pending)


async def _timed(
    request: _Request, planned: float, latencies: list[float], errors: list[str]
) -> None:
    door, prepared = request
    try:
        answer = await asyncio.wait_for(door.send(prepared), _TIMEOUT_SECONDS)
    except (OSError, EOFError) as error:  # a timeout is an OSError
        errors.append(repr(error))
        return
    if answer.status < _REFUSED:
        latencies.append(time.perf_counter() - planned)
    else:
        errors.append(f"{answer.status} {answer.body[:200]!r}")


async def _follow(client: httpx2.AsyncClient, base_url: str, stream: Stream) -> None:
    url = f"{base_url}/jobs/{stream.job_id}/events/stream"
    try:
        async with client.stream("GET", url) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith(_EVENT_ID):
                    stream.seen.append(int(line.removeprefix(_EVENT_ID)))
        stream.error = "the server closed it"
    except httpx2.HTTPError as error:
        stream.error = repr(error)
