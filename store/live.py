"""How a reader waits for what is not there yet: it looks again, less and less often.

Looking costs one query by primary key, and holds neither a transaction nor a thread in between. A
notification could shorten the wait later; it can never replace the look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")
SHORTEST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 1.0


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
