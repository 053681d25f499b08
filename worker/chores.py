"""The default station: what the service does now and then, whoever gets to it first."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import Final

from store import rubbish
from worker.process import Context, Station

_LOG: Final = logging.getLogger(__name__)
REST_SECONDS: Final = 600.0
"""Between two rounds of one worker: each lists the whole object store."""


def build(context: Context) -> Station:
    """The station of `python -m worker default`."""
    return ChoreStation(context)


class ChoreStation:
    """Deletes what is needed no more; a wake-up that comes too soon does nothing."""

    def __init__(self, context: Context, rest_seconds: float = REST_SECONDS) -> None:
        self._context = context
        self._rest_seconds = rest_seconds
        self._done_at: float | None = None
        self._working = threading.Lock()

    def drain(self) -> None:
        """One round, unless one was made just now or is under way."""
        if not self._working.acquire(blocking=False):
            return
        days = self._context.settings.keep_generations_days
        try:
            if not self._context.stopping.is_set() and self._is_rested():
                gone = rubbish.collect(
                    self._context.database,
                    self._context.objects,
                    keep_generations=None if days is None else timedelta(days=days),
                    should_stop=self._context.stopping.is_set,
                )
                self._done_at = time.monotonic()
                _LOG.info("collected %s", gone)
        finally:
            self._working.release()

    def stop(self) -> None:
        """Waits for the round that is under way, which ends at the next row."""
        if self._working.acquire(timeout=self._context.settings.grace_seconds):
            self._working.release()

    def _is_rested(self) -> bool:
        return self._done_at is None or time.monotonic() - self._done_at >= self._rest_seconds
