"""How many requests a caller may send, counted in this process."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from api.problems import ProblemError

_WINDOW_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a caller has left."""

    remaining: int
    reset_seconds: int


class RateLimits:
    """A sliding window per caller; belongs to one event loop."""

    def __init__(self, requests_per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(requests_per_minute)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def headers(self, allowance: Allowance) -> dict[str, str]:
        """The fields of the IETF draft `RateLimit header fields for HTTP`."""
        return {
            "RateLimit-Policy": f'"default";q={self._item.amount};w={_WINDOW_SECONDS}',
            "RateLimit": f'"default";r={allowance.remaining};t={allowance.reset_seconds}',
        }

    async def count(self, caller: str) -> Allowance:
        """Counts one request; raises ProblemError 429 when the caller has none left."""
        accepted = await self._limiter.hit(self._item, caller)
        stats = await self._limiter.get_window_stats(self._item, caller)
        allowance = Allowance(
            max(0, stats.remaining), max(1, math.ceil(stats.reset_time - time.time()))
        )
        if not accepted:
            wait = {"Retry-After": str(allowance.reset_seconds)}
            raise ProblemError(
                "rate_limited",
                f"more than {self._item.amount} requests in {_WINDOW_SECONDS} seconds",
                headers={**self.headers(allowance), **wait},
            )
        return allowance
