"""Keeps the leases of a batch while the child works on it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from store import generation_leases
from store.engine import Database
from store.settings import StoreSettings
from store.transitions import Lease
from worker.outages import OUTAGES

_LOG: Final = logging.getLogger(__name__)


class Renewal:
    """A thread that renews all leases every heartbeat, and hears which rows were cancelled."""

    def __init__(
        self, database: Database, leases: Sequence[Lease], settings: StoreSettings
    ) -> None:
        self._database = database
        self._leases = tuple(leases)
        self._settings = settings
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)
        self.held: frozenset[str] = frozenset(lease.row_id for lease in leases)
        """Rows that are this worker's, as far as it knows."""

    def start(self) -> None:
        """Begins to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join()

    def drop(self, row_id: str) -> None:
        """This row is finished: its lease is not renewed any more."""
        self._leases = tuple(lease for lease in self._leases if lease.row_id != row_id)

    def _run(self) -> None:
        while not self._ended.wait(self._settings.heartbeat_seconds):
            self._renew()

    def _renew(self) -> None:
        leases, seconds = self._leases, self._settings.lease_seconds
        try:
            self.held = self._database.transact(
                lambda session: generation_leases.renew(session, leases, lease_seconds=seconds)
            )
        except OUTAGES as error:
            _LOG.warning("%d leases were not renewed: %s", len(leases), error)
