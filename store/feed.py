"""New events of the jobs that somebody watches: one reader of a process for all its streams.

A stream with a reader of its own asks the database several times a second; a hundred of them would
be its whole load. Here one look finds what is new in all watched jobs, and each event is read once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from store import events
from store.engine import Database
from store.models import Job, JobEvent
from store.states import TERMINAL

LOOK_EVERY_SECONDS: Final = 0.2
_LOOK_AFTER_FAULT_SECONDS: Final = 2.0
_MOST_WAITING: Final = 64
_PAGE: Final = 500
_LOG: Final = logging.getLogger(__name__)

_Batch = tuple[JobEvent, ...]
_Queue = asyncio.Queue[_Batch]


@dataclass(eq=False, slots=True)
class Feed:
    """The events of watched jobs, as they come; belongs to one event loop."""

    database: Database
    look_every_seconds: float = LOOK_EVERY_SECONDS
    _watchers: dict[str, set[_Queue]] = field(default_factory=lambda: defaultdict(set))
    _told: dict[str, int] = field(default_factory=dict)
    """Number of the last event that the watchers of a job were told of."""
    _reader: asyncio.Task[None] | None = None

    @property
    def watchers(self) -> int:
        """How many streams are open."""
        return sum(map(len, self._watchers.values()))

    async def follow(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        """A job's events after number `after`, as they come; ends behind the job's last event.

        A reader that was cut off goes on with the last number it saw: nothing is lost or repeated.
        """
        # Watching begins before the history is read, so that nothing falls between the two.
        queue = self._watch(job_id)
        news: _Batch = ()
        try:
            while True:
                if not news or news[0].seq > after + 1:
                    news, nothing_follows = await asyncio.to_thread(
                        _history, self.database, job_id, after
                    )
                    if nothing_follows and not news:
                        return
                for event in news:
                    if event.seq > after:
                        yield event
                        after = event.seq
                if news and news[-1].type in events.ENDINGS:
                    return
                news = () if len(news) == _PAGE else await queue.get()
        finally:
            self._leave(job_id, queue)

    def _watch(self, job_id: str) -> _Queue:
        queue: _Queue = asyncio.Queue(_MOST_WAITING)
        self._watchers[job_id].add(queue)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return queue

    def _leave(self, job_id: str, queue: _Queue) -> None:
        self._watchers[job_id].discard(queue)
        if not self._watchers[job_id]:
            del self._watchers[job_id]
            self._told.pop(job_id, None)

    async def _read(self) -> None:
        """Looks until nobody watches; a database that is away is asked again later."""
        while self._watchers:
            known = {job_id: self._told.get(job_id) for job_id in self._watchers}
            wait = self.look_every_seconds
            try:
                news = await asyncio.to_thread(_news, self.database, known)
            except SQLAlchemyError as error:
                _LOG.warning("event streams wait for the database: %s", error)
                news, wait = {}, _LOOK_AFTER_FAULT_SECONDS
            for job_id, batch in news.items():
                self._tell(job_id, batch)
            await asyncio.sleep(wait)

    def _tell(self, job_id: str, batch: _Batch) -> None:
        queues = self._watchers.get(job_id)
        if queues is None:
            return
        self._told[job_id] = batch[-1].seq
        for queue in queues:
            if queue.full():
                # Its reader is slow: it finds the gap, and reads what it missed from the rows.
                while not queue.empty():
                    queue.get_nowait()
            queue.put_nowait(batch)


def _history(database: Database, job_id: str, after: int) -> tuple[_Batch, bool]:
    """A page of events, and whether the job has come to its end or is gone."""
    with database.read() as session:
        status = session.scalar(select(Job.status).where(Job.id == job_id))
        return events.after(session, job_id, after, limit=_PAGE), status in {None, *TERMINAL}


def _news(database: Database, known: Mapping[str, int | None]) -> dict[str, _Batch]:
    """Events above the known numbers; the last one alone of a job that is looked at first."""
    with database.read() as session:
        last = dict(iter(session.execute(select(Job.id, Job.event_seq).where(Job.id.in_(known)))))
        since = {
            job_id: last[job_id] - 1 if seq is None else seq
            for job_id, seq in known.items()
            if job_id in last
        }
        return {
            job_id: batch
            for job_id, seq in since.items()
            if last[job_id] > seq and (batch := events.after(session, job_id, seq, limit=_PAGE))
        }
