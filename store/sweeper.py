"""Looks regularly for expired leases and for rows that nobody was told of; runs in each process.

Every statement is conditional, so any number of sweepers may run at once. None is in an event
loop, and none needs the broker.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from store import generation_leases, leases
from store.attempts import Limits
from store.broker import Queue
from store.doorbell import Bell
from store.engine import Database
from store.settings import StoreSettings

_LOG: Final = logging.getLogger(__name__)
_SPREAD: Final = 0.3
_SWEEPS_PER_CHORES: Final = 6
"""Once a minute at ten seconds a sweep."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What one look found."""

    ended_jobs: int
    """Attempts whose leases had expired."""
    ended_generations: int
    due: frozenset[Queue]
    """Queues with rows that a worker may claim now, whoever was told of them."""
    rung: frozenset[Queue]
    """Queues whose workers this sweep woke."""


class Sweeper:
    """A thread that sweeps every ten seconds or so, until it is stopped."""

    def __init__(
        self,
        database: Database,
        doorbell: Bell,
        settings: StoreSettings,
        on_due: Callable[[frozenset[Queue]], None] | None = None,
    ) -> None:
        self.failures = 0
        """Sweeps that the database did not let through."""
        self._database = database
        self._doorbell = doorbell
        self._settings = settings
        self._on_due = on_due
        """Told of due queues after each sweep, so that a worker needs no broker to find them."""
        self._limits = Limits(backoff_seconds=settings.backoff_seconds)
        self._sweeps = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Sweeps for the first time at once."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when the sweep that is under way has ended."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep_once(self) -> Swept:
        """Ends expired attempts, and wakes whoever has something to do."""
        jobs = self._database.transact(lambda session: leases.sweep(session, self._limits))
        ended = self._database.transact(generation_leases.sweep)
        rung = self._database.transact(self._unwoken) | self._chores()
        with self._database.read() as session:
            due = _due(session)
        for queue in rung:
            self._doorbell.ring(queue)
        if due and self._on_due is not None:
            self._on_due(due)
        return Swept(len(jobs), len(ended), due, rung)

    def _unwoken(self, session: Session) -> frozenset[Queue]:
        seconds = self._settings.wake_again_seconds
        found = {
            Queue.TRAIN: bool(leases.unwoken(session, every_seconds=seconds)),
            Queue.GENERATE: generation_leases.unwoken(session, every_seconds=seconds),
        }
        return frozenset(queue for queue, waits in found.items() if waits)

    def _chores(self) -> frozenset[Queue]:
        self._sweeps += 1
        is_time = self._sweeps % _SWEEPS_PER_CHORES == 1
        return frozenset({Queue.DEFAULT} if is_time else ())

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.sweep_once()
            except Exception:  # noqa: BLE001  a database comes back, an ended thread does not
                self.failures += 1
                _LOG.exception("the sweep failed")
            pause = self._settings.sweep_seconds * random.uniform(1 - _SPREAD, 1 + _SPREAD)
            self._stopped.wait(pause)


def _due(session: Session) -> frozenset[Queue]:
    found = {Queue.TRAIN: leases.is_due(session), Queue.GENERATE: generation_leases.is_due(session)}
    return frozenset(queue for queue, waits in found.items() if waits)
