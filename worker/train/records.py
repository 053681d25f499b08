"""What an attempt writes into rows: events and log lines in batches, everything else at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from sqlalchemy.orm import Session

from shortft_core.events import AlertRaised, EvaluationDone, Event
from store import events, logs, receipts
from store.engine import Database
from store.transitions import Lease
from worker.outages import until_answered

_T = TypeVar("_T")
FLUSH_SECONDS: Final = 0.5
"""Metrics and log lines share two transactions a second, however fast the updates are."""
_AT_ONCE: Final = (AlertRaised, EvaluationDone)


class Records:
    """Writes under one lease, and waits while the database is away, until `give_up`.

    Every method raises LeaseLostError.
    """

    def __init__(self, database: Database, lease: Lease, give_up: Callable[[], bool]) -> None:
        self.lease = lease
        self._database = database
        self._give_up = give_up
        self._events: list[Event] = []
        self._lines: list[str] = []
        self._flushed_at = time.monotonic()

    def note(self, event: Event) -> None:
        """Takes an event that may wait for others; alerts and evaluations do not."""
        self._events.append(event)
        if isinstance(event, _AT_ONCE):
            self.flush()

    def note_lines(self, lines: Sequence[str]) -> None:
        """Takes log lines."""
        self._lines += lines

    def flush_if_due(self) -> None:
        """Writes what was noted, unless that was done just now."""
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what was noted."""
        noted, lines = self._events, self._lines
        if noted or lines:
            self._transact(lambda session: self._append(session, noted, lines))
        self._events, self._lines = [], []
        self._flushed_at = time.monotonic()

    def write(self, work: Callable[[Session, Lease], _T]) -> _T:
        """The result of a transaction, behind everything that was noted before it."""
        self.flush()
        return self._transact(lambda session: work(session, self.lease))

    def read(self, work: Callable[[Session], _T]) -> _T:
        """The result of a query."""

        def query() -> _T:
            with self._database.read() as session:
                return work(session)

        return until_answered(query, self._give_up)

    def _transact(self, work: Callable[[Session], _T]) -> _T:
        """The result of a transaction that is written once, even if a commit gets no answer."""
        receipt = receipts.new_receipt()
        results: list[_T] = []

        def signed(session: Session) -> _T:
            job_id = self.lease.row_id
            if results and receipts.is_signed(session, job_id, receipt):
                return results[-1]
            results.append(work(session))
            receipts.sign(session, job_id, receipt)
            return results[-1]

        return until_answered(lambda: self._database.transact(signed), self._give_up)

    def _append(self, session: Session, noted: Sequence[Event], lines: Sequence[str]) -> None:
        if noted:
            events.append(session, self.lease, noted)
        if lines:
            logs.append(session, self.lease, lines)
