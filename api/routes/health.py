"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

import platform
from importlib.metadata import version

from fastapi import APIRouter, Response

from api.readiness import check_all, status_of
from api.schemas.health import Alive, Readiness, Version
from api.service import AnyService

router = APIRouter(tags=["service"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def retrieve_health() -> Alive:
    """Always the same while the process answers; it asks nothing else."""
    return Alive()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    responses={503: {"model": Readiness, "description": "Something that is needed has failed."}},
)
def retrieve_readiness(service: AnyService, response: Response) -> Readiness:
    """Whether database, migrations and storage work; a broker that is away only degrades."""
    checks = check_all(service)
    status = status_of(checks)
    response.status_code = 503 if status == "failed" else 200
    response.headers["Cache-Control"] = "no-store"
    return Readiness(status=status, checks=checks)


@router.get("/version")
async def retrieve_version() -> Version:
    """What runs here."""
    return Version(version=version("shortft"), python=platform.python_version())
