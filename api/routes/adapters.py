"""Adapters: what finished alignments yield, and `/generate` serves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from api.auth import Reader
from api.openapi import refusals
from api.schemas.adapters import AdapterAnswer
from api.schemas.common import AnyPage, ListOf, list_of, names_row
from api.service import AnyService
from api.urls import AnyUrls, Urls
from shortft_core.adapter_card import AdapterCard
from store import results
from store.models import Adapter

router = APIRouter(tags=["adapters"])
_AdapterId = Annotated[str, names_row("adapter")]


@router.get("/adapters")
def list_adapters(
    service: AnyService,
    caller: Reader,
    page: AnyPage,
    urls: AnyUrls,
    request: Request,
    response: Response,
) -> ListOf[AdapterAnswer]:
    """The project's adapters, the newest first."""
    with service.database.read() as session:
        rows = results.adapters(session, caller.project, page)
    return list_of(
        rows, lambda row: _adapter(row, urls), lambda row: row.id, request, response, asked=page
    )


@router.get("/adapters/{adapter_id}", responses=refusals(404))
def retrieve_adapter(
    service: AnyService, caller: Reader, urls: AnyUrls, adapter_id: _AdapterId
) -> AdapterAnswer:
    """One adapter with its card."""
    with service.database.read() as session:
        row = results.adapter(session, adapter_id, caller.project)
    return _adapter(row, urls)


def _adapter(row: Adapter, urls: Urls) -> AdapterAnswer:
    card = AdapterCard.model_validate(row.card)
    return AdapterAnswer(
        id=row.id,
        job_id=row.job_id,
        name=row.name,
        base_model=row.base_model,
        method=card.method,
        rewards=list(card.rewards),
        steps=len(card.timesteps),
        guidance_scale=card.guidance_scale,
        rank=card.rank,
        branches=len(card.branches),
        card=row.card,
        artifact_ids=row.artifact_ids,
        created_at=row.created_at,
        urls={
            "self": urls.of(f"/adapters/{row.id}"),
            "job": urls.of(f"/jobs/{row.job_id}"),
        },
    )
