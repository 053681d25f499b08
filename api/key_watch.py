"""Whether anybody has made an API key: from then on one is asked for."""

from __future__ import annotations

import time
from typing import Final

from store import api_keys
from store.engine import Database

ASK_EVERY_SECONDS: Final = 1.0


class KeyWatch:
    """Remembers what the database said, so that a poll without a key costs no query of its own.

    Keys are never deleted, so a yes is for ever; a no is asked again after a second.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._exist = False
        self._asked_at = -ASK_EVERY_SECONDS

    def keys_exist(self) -> bool:
        """Whether there is a key, valid or not."""
        if not self._exist and time.monotonic() - self._asked_at >= ASK_EVERY_SECONDS:
            self._exist = keys_exist(self._database)
            self._asked_at = time.monotonic()
        return self._exist


def keys_exist(database: Database) -> bool:
    """Whether there is a key now, asked of the database."""
    with database.read() as session:
        return api_keys.any_exist(session)
