"""The routes: one module per resource, one line here for each."""

from collections.abc import Sequence
from functools import cache
from typing import Final

from fastapi import APIRouter
from starlette.routing import BaseRoute

from api import openapi
from api.routes import (
    adapters,
    api_keys,
    catalogs,
    docs,
    events,
    generations,
    health,
    images,
    jobs,
    problems,
    prometheus,
    prompt_sets,
    queue,
    results,
    scores,
    workers,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    jobs.router,
    events.router,
    results.router,
    generations.router,
    images.router,
    adapters.router,
    prompt_sets.router,
    catalogs.router,
    scores.router,
    queue.router,
    workers.router,
    health.router,
    prometheus.router,
    docs.router,
    api_keys.router,
    problems.router,
)
"""Served at `/` and, for clients that want to stay with this version, at `/v1`."""


@cache
def served() -> Sequence[BaseRoute]:
    """All of them, with the refusals that any may answer with; worked out once in a process."""
    together = APIRouter(generate_unique_id_function=openapi.operation_id)
    for router in ROUTERS:
        together.include_router(router, responses=openapi.refusals(*openapi.COMMON))
    return tuple(together.routes)
