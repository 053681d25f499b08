"""What the service needs, tried out: each check says what is wrong, never where."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final, Literal

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from api.schemas.health import Check
from api.service import Service
from migrations import version
from shortft_core.errors import ShortFTError
from store import object_keys

_LOG: Final = logging.getLogger(__name__)
_TIMEOUT_SECONDS: Final = 1.0
# What a bucket raises depends on its client, and all of those are OSErrors or carry one.
_FAULTS: Final = (SQLAlchemyError, RedisError, ShortFTError, OSError, TimeoutError)


def check_all(service: Service) -> dict[str, Check]:
    """The checks by name, not older than a few seconds."""
    return service.readiness.get(lambda: _checks(service))


def _checks(service: Service) -> dict[str, Check]:
    return {
        "database": _check(lambda: _database(service), "it cannot be reached"),
        "migrations": _check(
            lambda: version.check(service.database.reader), "they are not applied"
        ),
        "storage": _check(lambda: _storage(service), "it cannot be written"),
        "broker": _check(lambda: _broker(service), "it cannot be reached", required=False),
    }


def status_of(checks: dict[str, Check]) -> Literal["ok", "degraded", "failed"]:
    """The worst of them."""
    failed = [check for check in checks.values() if check.status == "failed"]
    if any(check.required for check in failed):
        return "failed"
    return "degraded" if failed else "ok"


def _check(attempt: Callable[[], None], problem: str, *, required: bool = True) -> Check:
    try:
        attempt()
    except _FAULTS as error:
        _LOG.warning("not ready: %s", error)
        return Check(status="failed", required=required, detail=problem)
    return Check(status="ok", required=required, detail=None)


def _database(service: Service) -> None:
    with service.database.reader.connect() as connection:
        connection.exec_driver_sql("SELECT 1")


def _storage(service: Service) -> None:
    key, data = object_keys.probe_key(), b"probe"
    service.objects.write(key, data)
    try:
        service.objects.read(key)
    finally:
        service.objects.delete(key)


def _broker(service: Service) -> None:
    address = service.store_settings.redis_address()
    if address is None:
        folder = service.store_settings.message_folder()
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
        return
    with Redis.from_url(
        address, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS
    ) as client:
        client.ping()
