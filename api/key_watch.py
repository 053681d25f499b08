"""What the database said about API keys a moment ago, so that a poll costs no query for its key."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Final

from store import api_keys
from store.engine import Database
from store.models import ApiKey

ASK_EVERY_SECONDS: Final = 1.0
_MOST_REMEMBERED: Final = 1000


class KeyWatch:
    """Remembers for a second which keys are valid, and whether there are any.

    A key that is revoked or expires meanwhile opens requests for as long; one that is not valid is
    never remembered. Keys are never deleted, so that there are some is remembered for ever. It
    belongs to one event loop.
    """

    def __init__(self, database: Database, secret: bytes) -> None:
        self._database = database
        self._secret = secret
        self._exist = False
        self._asked_at = -ASK_EVERY_SECONDS
        self._valid: OrderedDict[str, tuple[float, ApiKey]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[ApiKey | None]] = {}

    async def keys_exist(self) -> bool:
        """Whether there is a key, valid or not."""
        if not self._exist and time.monotonic() - self._asked_at >= ASK_EVERY_SECONDS:
            self._exist = await asyncio.to_thread(keys_exist, self._database)
            self._asked_at = time.monotonic()
        return self._exist

    async def find(self, key: str) -> ApiKey | None:
        """The row of a key that is known, neither revoked nor expired; else None."""
        digest = api_keys.digest(self._secret, key)
        asked_at, row = self._valid.get(digest, (0.0, None))
        if row is not None and time.monotonic() - asked_at < ASK_EVERY_SECONDS:
            return row
        if digest not in self._asking:
            # One question for all who show the key meanwhile.
            asked = asyncio.create_task(self._ask(digest, key))
            self._asking[digest] = asked
            asked.add_done_callback(lambda _: self._asking.pop(digest))
        return await asyncio.shield(self._asking[digest])

    async def _ask(self, digest: str, key: str) -> ApiKey | None:
        self._valid.pop(digest, None)
        now = time.monotonic()
        found = await asyncio.to_thread(_find, self._database, self._secret, key)
        if found is not None:
            self._valid[digest] = (now, found)
            while len(self._valid) > _MOST_REMEMBERED:
                self._valid.popitem(last=False)
        return found


def keys_exist(database: Database) -> bool:
    """Whether there is a key now, asked of the database."""
    with database.read() as session:
        return api_keys.any_exist(session)


def _find(database: Database, secret: bytes, key: str) -> ApiKey | None:
    with database.read() as session:
        return api_keys.authenticate(session, secret, key)
