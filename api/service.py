"""What every request works with, opened once in each process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from api.cached import Cached
from api.job_reader import JobReader
from api.key_uses import KeyUses
from api.key_watch import KeyWatch
from api.rate_limits import RateLimits
from api.schemas.health import Check
from api.settings import ApiSettings
from api.sse import Streams
from migrations import version
from store.doorbell import Doorbell, open_doorbell
from store.engine import Database, open_database
from store.objects import ObjectStore, open_objects
from store.settings import StoreSettings
from store.sweeper import Sweeper

READINESS_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """Rows, objects, the way to wake workers, and the limits of callers."""

    settings: ApiSettings
    store_settings: StoreSettings
    secret: bytes
    """API keys are hashed with it."""
    database: Database
    objects: ObjectStore
    doorbell: Doorbell
    """Rung after a commit, never inside a transaction."""
    job_reader: JobReader
    key_watch: KeyWatch
    key_uses: KeyUses
    rate_limits: RateLimits
    streams: Streams
    readiness: Cached[dict[str, Check]]
    """Anybody may ask for it, and finding out writes an object."""


@asynccontextmanager
async def open_service(
    settings: ApiSettings, store_settings: StoreSettings
) -> AsyncIterator[Service]:
    """The service of this process, with its sweeper running; raises UserError if it cannot be."""
    async with AsyncExitStack() as stack:
        database = open_database(store_settings.database_address())
        stack.callback(database.close)
        version.check(database.reader)
        doorbell = open_doorbell(store_settings, role="api")
        stack.callback(doorbell.close)
        sweeper = Sweeper(database, doorbell, store_settings)
        sweeper.start()
        stack.callback(sweeper.stop)
        key_uses = KeyUses(database)
        key_uses.start()
        stack.callback(key_uses.stop)
        streams = Streams(database, settings.most_streams, settings.stream_seconds)
        stack.callback(streams.close)
        secret = store_settings.secret()
        yield Service(
            settings=settings,
            store_settings=store_settings,
            secret=secret,
            database=database,
            objects=open_objects(store_settings.storage_address()),
            doorbell=doorbell,
            job_reader=JobReader(database),
            key_watch=KeyWatch(database, secret),
            key_uses=key_uses,
            rate_limits=RateLimits(settings.requests_per_minute),
            streams=streams,
            readiness=Cached(READINESS_SECONDS),
        )


async def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


AnyService = Annotated[Service, Depends(service_of)]
"""Parameter of a route: the service."""
