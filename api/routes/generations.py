"""Generations: images on demand, from base models and from what jobs have tuned."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import generation_request
from api.adapter_choice import ChosenAdapter, read_adapter
from api.auth import Generator
from api.generation_answers import answer
from api.generation_service import AnyOrder, Order, resolved
from api.idempotent import AnyKeyed, Keyed, Reply, once
from api.openapi import refusals
from api.preferences import LONGEST_WAIT_SECONDS, Preference, negotiate
from api.problems import ProblemError
from api.schemas.common import AnyPage, ListOf, list_of
from api.schemas.generations import (
    GenerationAnswer,
    GenerationId,
    GenerationRequest,
    OutputFormat,
)
from api.service import AnyService
from api.submit import check_files
from api.urls import AnyUrls
from api.weights import needed_by_generation
from shortft_core.errors import ShortFTError
from store import adapter_references, generations
from store.generations import NewGeneration

router = APIRouter(tags=["generations"])
_JSON: Final = "application/json"
_FORMATS: Final[dict[str, OutputFormat]] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
}
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_PREFERENCE: Final = {
    "Preference-Applied": {"schema": {"type": "string"}, "description": "The part of `Prefer`."}
}
_ANSWERS: Final[dict[int | str, dict[str, object]]] = {
    200: {
        "description": "Finished within the time that `Prefer: wait` gave, or a repetition of an "
        "earlier request; the only picture itself where `Accept` asks for one.",
        "model": GenerationAnswer,
        "content": dict.fromkeys(_FORMATS, _BINARY),
        "headers": _PREFERENCE,
    },
    202: {"description": "Queued; `Location` says where it will be.", "headers": _PREFERENCE},
    **refusals(404, 406, 409, 410),
}


@router.post("/generate", status_code=202, response_model=GenerationAnswer, responses=_ANSWERS)
async def create_generation(
    asked: GenerationRequest,
    order: AnyOrder,
    keyed: AnyKeyed,
    accept: Annotated[
        str | None,
        Header(description="An image type answers with the only picture itself, once it is done."),
    ] = None,
) -> Response:
    """Makes images; the answer comes at once, or when they are done if `Prefer` says so."""
    media_type = negotiate(accept, (_JSON, *_FORMATS))
    output_format = asked.output_format or "png"
    if media_type != _JSON:
        order = replace(order, preference=_patient(order.preference))
        output_format = _format_of(asked, media_type, accept or "")
    reply, warnings = await run_in_threadpool(_submit, order, asked, output_format, keyed)
    if media_type != _JSON:
        return await order.respond_with_image(reply)
    with_bytes = asked.response_format == "b64_json"
    return await order.respond(reply, warnings, with_bytes=with_bytes)


@router.get("/generations", responses=refusals(410))
def list_generations(
    service: AnyService,
    caller: Generator,
    page: AnyPage,
    urls: AnyUrls,
    request: Request,
    response: Response,
) -> ListOf[GenerationAnswer]:
    """The project's generations, the newest first."""
    with service.database.read() as session:
        rows = generations.page(session, caller.project, page)
    return list_of(
        rows,
        lambda row: answer(row, service, urls),
        lambda row: row.id,
        request,
        response,
        asked=page,
    )


@router.get("/generations/{generation_id}", responses=refusals(404, 410))
def retrieve_generation(
    service: AnyService,
    caller: Generator,
    generation_id: GenerationId,
    urls: AnyUrls,
    response_format: Annotated[
        Literal["url", "b64_json"], Query(description="Whether the bytes come along.")
    ] = "url",
) -> GenerationAnswer:
    """Where a generation stands, and its images once it has succeeded."""
    with service.database.read() as session:
        row = generations.get(session, generation_id, caller.project)
    return answer(row, service, urls, with_bytes=response_format == "b64_json")


@router.post(
    "/generations/{generation_id}/cancel",
    response_model=GenerationAnswer,
    responses=refusals(404, 409),
)
def cancel_generation(
    service: AnyService,
    caller: Generator,
    generation_id: GenerationId,
    urls: AnyUrls,
    keyed: AnyKeyed,
) -> Response:
    """Ends a generation now, whoever works on it."""
    request = None if keyed is None else keyed.of(caller)

    def transaction(session: Session) -> Reply:
        def cancel() -> GenerationAnswer:
            return answer(generations.cancel(session, generation_id, caller.project), service, urls)

        return once(session, request, generation_id, 200, cancel)

    return service.database.transact(transaction).response()


@router.delete("/generations/{generation_id}", status_code=204, responses=refusals(404, 409))
def delete_generation(service: AnyService, caller: Generator, generation_id: GenerationId) -> None:
    """Forgets a finished generation, with its pictures."""
    # They are rubbish from now on, which the chores collect once it has lain for a day.
    service.database.transact(
        lambda session: generations.remove(session, generation_id, caller.project)
    )


def _submit(
    order: Order, asked: GenerationRequest, output_format: OutputFormat, keyed: Keyed | None
) -> tuple[Reply, tuple[str, ...]]:
    """The reply, and what the caller should know of the request."""
    found = resolved(lambda: _resolve(order, asked, output_format), keyed)
    if isinstance(found, ShortFTError):
        return order.submit(found, keyed), ()
    new = NewGeneration(
        request=found.spec.model_dump(mode="json"),
        batch_key=found.spec.batch_key(),
        project=order.caller.project,
        api_key_id=order.caller.api_key_id,
    )
    return order.submit(new, keyed, found.warnings), found.warnings


def _resolve(
    order: Order, asked: GenerationRequest, output_format: OutputFormat
) -> generation_request.Resolved:
    found = generation_request.resolve(asked, _adapters(order, asked), output_format)
    check_files(order.service, needed_by_generation(found.spec))
    return found


def _adapters(order: Order, asked: GenerationRequest) -> list[ChosenAdapter]:
    service, project = order.service, order.caller.project
    chosen = []
    for choice in asked.adapters:
        with service.database.read() as session:
            found = adapter_references.resolve(session, choice.id, project)
        chosen.append(read_adapter(service.objects, found, choice.scale))
    return chosen


def _patient(preference: Preference) -> Preference:
    """Whoever asks for the picture itself waits for it, unless it says for how long."""
    return preference if preference.applied else Preference(LONGEST_WAIT_SECONDS)


def _format_of(asked: GenerationRequest, media_type: str, accept: str) -> OutputFormat:
    """The format of a picture that is itself the answer; raises ProblemError 406."""
    if asked.images != 1 or asked.compare_base:
        raise ProblemError(
            "not_acceptable", f"`Accept` may name an image type for one image; else {_JSON}"
        )
    wanted = asked.output_format or _FORMATS[media_type]
    negotiate(accept, [name for name, kind in _FORMATS.items() if kind == wanted])
    return wanted
