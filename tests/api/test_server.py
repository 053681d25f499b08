"""The server's own part: what it does before it listens."""

from __future__ import annotations

import asyncio
import gc

import pytest

from api.app import create_app
from api.server import Server
from api.settings import ApiSettings
from store.settings import StoreSettings


class Brief(Server):
    """It stops as soon as it listens."""

    frozen: int

    async def main_loop(self) -> None:
        """Looks instead of answering."""
        self.frozen = gc.get_freeze_count()


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_what_lives_as_long_as_the_server_is_kept_out_of_collections(stack: StoreSettings) -> None:
    settings = ApiSettings(port=0)
    quiet: dict[str, object] = {"version": 1, "disable_existing_loggers": False}
    server = Brief(create_app(settings, stack), settings, quiet)
    gc.collect()
    alive = len(gc.get_objects())
    try:
        asyncio.run(server.serve())
        assert server.frozen >= alive
    finally:
        gc.unfreeze()
