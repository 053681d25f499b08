"""Figures for Prometheus, computed from rows when they are asked for."""

from __future__ import annotations

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
    dependencies=[Depends(reads_figures)],
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format."}},
)
def read_metrics(service: AnyService) -> Response:
    """Figures of the whole service, for the operator's token or a key of scope admin."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(service))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
