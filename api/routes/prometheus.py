"""Figures for Prometheus, computed from rows when they are asked for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.auth import reads_figures
from api.figures import Figures
from api.service import AnyService

router = APIRouter(tags=["service"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format."}},
)
def read_metrics(
    service: AnyService, project: Annotated[str | None, Depends(reads_figures)]
) -> Response:
    """Figures of the whole service, for the operator's token or a key of scope admin.

    A key is told of the running jobs of its project alone.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(service, project))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
