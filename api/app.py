"""The application: routes, errors and limits around one service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api import errors, openapi
from api.limits import Gate
from api.routes import served
from api.service import open_service
from api.settings import ApiSettings
from store.settings import StoreSettings


def create_app(settings: ApiSettings, store_settings: StoreSettings) -> FastAPI:
    """The application; its service is opened when it starts, and closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service(settings, store_settings) as service:
            app.state.service = service
            yield

    app = FastAPI(
        title="ShortFT",
        version=version("shortft"),
        lifespan=lifespan,
        routes=list(served()),
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        root_path_in_servers=False,
        # The address of a redirect would be built from whatever host the request names.
        redirect_slashes=False,
    )
    errors.install(app)
    openapi.install(app)
    app.add_middleware(Gate, max_body_mb=settings.max_body_mb)
    return app
