"""When a job whose attempts keep ending is given up, and how long it waits before the next one.

Two counters tell a poison job, whose own process dies, from bad luck, when its worker is lost.
Both begin anew when the attempt reached a new checkpoint.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum, auto


class Ending(StrEnum):
    """How an attempt ended without a result."""

    STOPPED = auto()
    """The worker shut down in order; nobody's fault."""
    CRASHED = auto()
    """The trainer died while its worker lived."""
    LEASE_EXPIRED = auto()
    """The worker was not heard of in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How often an attempt may end without a result; the times are those measured as sufficient."""

    crashes: int = 3
    """In a row, without a new checkpoint between them."""
    lost_leases: int = 10
    """In a row, without a new checkpoint between them."""
    attempts: int = 50
    """In all."""
    backoff_seconds: float = 5.0
    """Wait after the first failed attempt; doubles with each further one."""
    longest_backoff_seconds: float = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """The counters of a row."""

    attempt: int
    crashes: int
    lost_leases: int

    def after(self, ending: Ending, *, progressed: bool) -> Tally:
        """The counters once an attempt has ended; an orderly stop is no attempt at all."""
        crashes = 0 if progressed else self.crashes
        lost_leases = 0 if progressed else self.lost_leases
        return Tally(
            attempt=self.attempt - (ending is Ending.STOPPED),
            crashes=crashes + (ending is Ending.CRASHED),
            lost_leases=lost_leases + (ending is Ending.LEASE_EXPIRED),
        )

    def exhausted(self, limits: Limits) -> str | None:
        """The error code of the limit that is reached, if one is."""
        if self.crashes >= limits.crashes:
            return "crashed"
        if self.lost_leases >= limits.lost_leases:
            return "worker_lost"
        return "too_many_attempts" if self.attempt >= limits.attempts else None

    def backoff(self, limits: Limits) -> timedelta:
        """How long to wait: doubling, capped, and spread by 30 % so that jobs do not march."""
        failures = self.crashes + self.lost_leases
        if failures == 0:
            return timedelta(0)
        # The cap is reached long before 2**30; the bound keeps the power from overflowing.
        seconds = limits.backoff_seconds * 2 ** min(failures - 1, 30)
        return timedelta(
            seconds=min(limits.longest_backoff_seconds, seconds) * random.uniform(0.7, 1.3)
        )
