"""Server-sent events: a job's history as it grows, for as long as somebody listens.

Every frame carries the number of its event, so a reader that was cut off names the last one it saw.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from fastapi.sse import ServerSentEvent

from api.problems import ProblemError
from store import events
from store.engine import Database
from store.feed import Feed
from store.models import JobEvent

RETRY_MILLISECONDS: Final = 2000
"""How soon a browser connects again."""


class Streams:
    """The open streams of this process; belongs to one event loop."""

    def __init__(self, database: Database, most_per_caller: int, seconds: float) -> None:
        self._feed = Feed(database)
        self._most_per_caller = most_per_caller
        self._seconds = seconds
        self._open: Counter[str] = Counter()
        self._closing = asyncio.Event()

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open.total()

    def close(self) -> None:
        """Ends all streams at once; their readers connect again, elsewhere or later."""
        self._closing.set()

    @contextmanager
    def admitted(self, caller: str) -> Iterator[None]:
        """Counts a stream while the block runs; raises ProblemError 429 for one too many."""
        if self._open[caller] >= self._most_per_caller:
            detail = f"{self._most_per_caller} event streams of this key are open"
            raise ProblemError("too_many_streams", detail, headers={"Retry-After": "5"})
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1

    async def frames(self, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
        """A job's events after number `after` as they come, then `done`.

        Without `done` the stream has reached its time, or the service stops.
        """
        yield opening()
        async for event in self._until_closed(self._feed.follow(job_id, after)):
            yield frame(event)
            if event.type in events.ENDINGS:
                yield done(event.type)
                return

    async def _until_closed(self, source: AsyncIterator[JobEvent]) -> AsyncIterator[JobEvent]:
        """What the source yields until it ends, its time is over, or all streams are closed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        closing = asyncio.create_task(self._closing.wait())
        coming: asyncio.Task[JobEvent | None] | None = None
        try:
            while True:
                coming = asyncio.create_task(_next(source))
                left = max(0.0, deadline - loop.time())
                await asyncio.wait(
                    {coming, closing}, timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                event = coming.result() if coming.done() else None
                if event is None:
                    return
                yield event
        finally:
            # A cancelled read closes its source by itself.
            closing.cancel()
            if coming is not None:
                coming.cancel()


def opening() -> ServerSentEvent:
    """The first frame, before anything has happened: the stream is open."""
    return ServerSentEvent(comment="ok", retry=RETRY_MILLISECONDS)


def frame(event: JobEvent) -> ServerSentEvent:
    """One event on the wire: its number, its type, and the envelope that every reader gets."""
    text = json.dumps(events.envelope(event), allow_nan=False)
    return ServerSentEvent(id=str(event.seq), event=event.type, raw_data=text)


def done(ending: str) -> ServerSentEvent:
    """The last frame: the job is over, and nobody has to connect again."""
    return ServerSentEvent(event="done", data={"status": ending.removeprefix("job.")})


async def _next(source: AsyncIterator[JobEvent]) -> JobEvent | None:
    return await anext(source, None)
