"""Rewards on pictures, outside of any job: what a reward thinks of them, before tuning on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response
from starlette.concurrency import run_in_threadpool

from api.bodies import either
from api.generation_service import AnyOrder, Order, resolved
from api.idempotent import Reply
from api.openapi import refusals
from api.problems import ProblemError
from api.schemas.generations import GenerationAnswer, ScoreRequest
from api.score_request import FIELDS, Asked
from api.submit import check_files
from api.weights import needed_by_score
from shortft_core import catalog
from shortft_core.errors import UnknownNameError
from shortft_core.spec.generation import ScoredImage, ScoreSpec
from store.errors import QuotaExceededError
from store.generations import NewGeneration
from store.ids import new_id

router = APIRouter(tags=["rewards"])
_ANSWERS: Final[dict[int | str, dict[str, object]]] = {
    200: {
        "description": "Scored within the time that `Prefer: wait` gave, or a repetition of an "
        "earlier request.",
        "model": GenerationAnswer,
    },
    202: {"description": "Queued; `Location` says where it will be."},
    **refusals(404, 409, 410),
}


@router.post(
    "/rewards/{name}/score",
    status_code=202,
    response_model=GenerationAnswer,
    responses=_ANSWERS,
    openapi_extra=either(ScoreRequest, FIELDS, ["images"]),
)
async def score_images(
    name: str, order: AnyOrder, asked: Annotated[Asked, Depends(Asked.read)]
) -> Response:
    """Scores pictures, uploaded or generated before; each is scored under its prompt."""
    # `order` stands before `asked`: who may not ask is refused before the parts are read.
    if name not in catalog.REWARDS:
        unknown = UnknownNameError("name", name, catalog.REWARDS)
        raise ProblemError("not_found", str(unknown), "name", extra={"known": list(unknown.known)})
    reply = await run_in_threadpool(_submit, name, asked, order)
    return await order.respond(reply)


def _submit(name: str, asked: Asked, order: Order) -> Reply:
    """Stores uploads when nothing else can be wrong, and never for a repetition."""
    made = resolved(lambda: _resolve(name, asked, order), asked.keyed)
    stored: tuple[ScoredImage, ...] = ()
    if isinstance(made, NewGeneration) and asked.uploads and not order.is_repetition(asked.keyed):
        stored = asked.uploaded(made.id)
        asked.store(order.service, stored)
    try:
        reply = order.submit(made, asked.keyed)
    except QuotaExceededError:
        _delete(order, stored)
        raise
    if reply.replayed:
        # The first of two requests at once had the key.
        _delete(order, stored)
    return reply


def _delete(order: Order, stored: Sequence[ScoredImage]) -> None:
    for image in stored:
        order.service.objects.delete(image.key)


def _resolve(name: str, asked: Asked, order: Order) -> NewGeneration:
    term = asked.reward(name)
    check_files(order.service, needed_by_score(term))
    generation_id = new_id("gen")
    images = (
        asked.uploaded(generation_id)
        if asked.uploads
        else asked.find(order.service, order.caller.project)
    )
    spec = ScoreSpec(rewards=(term,), images=images)
    return NewGeneration(
        id=generation_id,
        kind="score",
        request=spec.model_dump(mode="json"),
        batch_key=spec.batch_key(),
        project=order.caller.project,
        api_key_id=order.caller.api_key_id,
    )
