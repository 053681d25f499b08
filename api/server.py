"""The server process: uvicorn, which tells the open streams that it stops before it waits."""

from __future__ import annotations

import gc
import socket
from contextlib import suppress
from typing import Final

import uvicorn
from fastapi import FastAPI
from starlette.routing import NoMatchFound

from api.settings import ApiSettings

_KEEP_ALIVE_SECONDS: Final = 75
"""Longer than clients and proxies keep a connection that rests (mostly 5 to 60 s): whoever closes
it second may have sent a request on it already."""


class Server(uvicorn.Server):
    """Ends event streams at the first signal: otherwise they would last until the grace is over."""

    def __init__(self, app: FastAPI, settings: ApiSettings, log_config: dict[str, object]) -> None:
        self._app = app
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=log_config,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Does first what requests would wait for later."""
        with suppress(NoMatchFound):
            # To find what is not there, the framework works out all that is.
            self._app.url_path_for("")
        await super().startup(sockets)
        # What lives as long as the process is not looked through again and again: each time, all
        # requests would wait.
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the streams, then whatever uvicorn closes."""
        self._app.state.service.streams.close()
        await super().shutdown(sockets)
