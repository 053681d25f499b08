"""The routes: one module per resource, one line here for each."""

from typing import Final

from fastapi import APIRouter

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
