"""Polls that come together are answered by one look at the rows.

Clients mostly ask how their jobs are, and each answer of its own would cost a thread, a transaction
and its statements. Here one thread reads at a time, for all who asked while it read: the busier the
service, the more of them share a look. Nobody is told what was true before he asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from api.job_view import Surroundings, surroundings
from store import jobs
from store.engine import Database
from store.errors import NotFoundError
from store.models import Job

PAUSE_SECONDS: Final = 0.01
"""Between two looks at least; who asks alone does not wait for it."""
_REST: Final = 2
"""Times as long as a look took is rested after it: a busy machine looks less often, for more."""
_MOST: Final = 100
"""Jobs of one look."""


@dataclass(frozen=True, slots=True)
class Found:
    """Rows as they were at one moment."""

    jobs: Mapping[str, Job]
    around: Surroundings


_Answer = asyncio.Future[Found]


@dataclass(eq=False, slots=True)
class JobReader:
    """Reads jobs for many callers at once; belongs to one event loop."""

    database: Database
    _waiting: dict[str, list[_Answer]] = field(default_factory=lambda: defaultdict(list))
    _reader: asyncio.Task[None] | None = None

    async def read(self, job_id: str, project: str) -> tuple[Job, Surroundings]:
        """A job with its result, as it is now; raises NotFoundError, for others' jobs too."""
        answer: _Answer = asyncio.get_running_loop().create_future()
        self._waiting[job_id].append(answer)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        found = await answer
        job = found.jobs.get(job_id)
        if job is None or job.project != project:
            raise NotFoundError("job", job_id)
        return job, found.around

    async def _read(self) -> None:
        """Looks until nobody waits."""
        while self._waiting:
            asked = {job_id: self._waiting.pop(job_id) for job_id in list(self._waiting)[:_MOST]}
            answers = [answer for waiting in asked.values() for answer in waiting]
            began = time.monotonic()
            try:
                found = await asyncio.to_thread(_look, self.database, tuple(asked))
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                for answer in answers:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for answer in answers:
                    if not answer.done():
                        answer.set_result(found)
            await asyncio.sleep(max(PAUSE_SECONDS, _REST * (time.monotonic() - began)))


def _look(database: Database, job_ids: tuple[str, ...]) -> Found:
    with database.read() as session:
        found = jobs.get_many(session, job_ids)
        return Found(found, surroundings(session, found.values()))
