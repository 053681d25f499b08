"""Figures for Prometheus, computed from rows when they are asked for."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.figures import Figures
from api.problems import ProblemError
from api.service import AnyService

router = APIRouter(tags=["service"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format."}},
)
def read_metrics(
    service: AnyService, authorization: Annotated[str | None, Header()] = None
) -> Response:
    """Figures of the whole service; where an operator has set a token, it is the bearer token."""
    token = service.settings.metrics_token
    if token is not None:
        expected = f"Bearer {token.get_secret_value()}".encode()
        if not secrets.compare_digest((authorization or "").encode(), expected):
            raise ProblemError(
                "unauthenticated",
                "the token of the metrics is needed",
                headers={"WWW-Authenticate": 'Bearer realm="metrics"'},
            )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(service))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
