"""How a reader waits for what is not there yet: it looks again, less and less often.

Looking costs one query by primary key, and holds neither a transaction nor a thread in between. A
notification could shorten the wait later; it can never replace the look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

from store import events
from store.engine import Database
from store.models import JobEvent

_T = TypeVar("_T")
SHORTEST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 1.0


async def follow(database: Database, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
    """A job's events after number `after`, as they come; ends behind the job's last event.

    A reader that was cut off goes on with the last number it saw: nothing is lost or repeated.
    """
    wait = SHORTEST_WAIT_SECONDS
    while True:
        news = await asyncio.to_thread(_read, database, job_id, after)
        for event in news:
            yield event
            after = event.seq
        if news and news[-1].type in events.ENDINGS:
            return
        wait = SHORTEST_WAIT_SECONDS if news else min(2 * wait, LONGEST_WAIT_SECONDS)
        await asyncio.sleep(wait)


async def until(look: Callable[[], _T | None], timeout_seconds: float) -> _T | None:
    """What `look` finds, or None after the time; `look` runs in a thread and may read rows."""
    deadline = time.monotonic() + timeout_seconds
    wait = SHORTEST_WAIT_SECONDS
    while (found := await asyncio.to_thread(look)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        await asyncio.sleep(min(wait, left))
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
    return found


def _read(database: Database, job_id: str, after: int) -> tuple[JobEvent, ...]:
    with database.read() as session:
        return events.after(session, job_id, after)
