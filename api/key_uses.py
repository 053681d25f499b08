"""When keys were last used: collected in memory, so that reading never waits for a write."""

from __future__ import annotations

import logging
import threading
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store import api_keys
from store.engine import Database
from store.errors import StoreError

WRITE_EVERY_SECONDS: Final = 60.0
_LOG: Final = logging.getLogger(__name__)


class KeyUses:
    """A thread that writes once a minute which keys were used since it last did."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-uses", daemon=True)

    def start(self) -> None:
        """Writes for the first time in a minute."""
        self._thread.start()

    def stop(self) -> None:
        """Writes what is left, and returns when that is done."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def note(self, key_id: str) -> None:
        """Remembers that a key was used; returns at once."""
        with self._lock:
            self._used.add(key_id)

    def write(self) -> None:
        """Writes what was noted; what the database refuses is tried again the next time."""
        with self._lock:
            used, self._used = self._used, set()
        if not used:
            return

        def work(session: Session) -> None:
            # In one order, so that two processes cannot wait for each other.
            for key_id in sorted(used):
                api_keys.note_use(session, key_id)

        try:
            self._database.transact(work)
        except (SQLAlchemyError, StoreError) as error:
            _LOG.warning("the use of %d keys was not noted: %s", len(used), error)
            with self._lock:
                self._used |= used

    def _run(self) -> None:
        while not self._stopped.wait(WRITE_EVERY_SECONDS):
            self.write()
        self.write()
