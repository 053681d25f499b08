"""Prompt sets: what jobs are tuned and evaluated on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from api.auth import Caller, Reader, Writer
from api.bodies import either
from api.idempotent import Reply, once
from api.openapi import refusals
from api.prompt_uploads import FIELDS, PromptUpload
from api.schemas.common import MOST_INT, AnyPage, ListOf, list_of, names_row
from api.schemas.prompt_sets import (
    CreatedPromptSet,
    NewPromptSet,
    PromptAnswer,
    PromptList,
    PromptSetAnswer,
)
from api.service import AnyService, Service
from api.urls import AnyUrls
from shortft_core import prompts
from shortft_core.errors import UserError
from shortft_core.prompt_sets import PROMPT_SETS
from shortft_core.prompts import PromptSet
from shortft_core.settings import settings
from shortft_core.spec import PromptSource
from store import prompt_sets
from store.ids import new_id
from store.models import PromptSetRow

router = APIRouter(tags=["prompt sets"])
_T = TypeVar("_T")
_MOST_AT_ONCE: Final = 1000
_CREATED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": CreatedPromptSet, "description": "An earlier request had done it."},
    **refusals(409),
}
_ROW_ID: Final[TypeAdapter[str]] = TypeAdapter(Annotated[str, names_row("prompt set")])


@router.post(
    "/prompt-sets",
    status_code=201,
    response_model=CreatedPromptSet,
    responses=_CREATED,
    openapi_extra=either(NewPromptSet, FIELDS, ["file"]),
)
def create_prompt_set(
    service: AnyService,
    caller: Writer,
    upload: Annotated[PromptUpload, Depends(PromptUpload.read)],
    urls: AnyUrls,
) -> Response:
    """Keeps prompts under a name that is free in the project."""
    row_id = new_id("ps")
    request = None if upload.keyed is None else upload.keyed.of(caller)

    def transaction(session: Session) -> Reply:
        return once(session, request, row_id, 201, lambda: _create(session, caller, row_id, upload))

    reply = service.database.transact(transaction)
    return reply.response({"Location": urls.of(f"/prompt-sets/{reply.resource_id}")})


def _create(
    session: Session, caller: Caller, row_id: str, upload: PromptUpload
) -> CreatedPromptSet:
    found = upload.prompts
    row = prompt_sets.create(session, caller.project, upload.name, found, row_id=row_id)
    return CreatedPromptSet(
        **_uploaded(row).model_dump(),
        duplicates=len(found.duplicates),
        empties=len(found.empties),
        warnings=list(found.warnings()),
    )


@router.get("/prompt-sets")
def list_prompt_sets(
    service: AnyService, caller: Reader, page: AnyPage, request: Request, response: Response
) -> ListOf[PromptSetAnswer]:
    """The project's sets, then those of the catalog, which the limit does not count."""
    with service.database.read() as session:
        rows = prompt_sets.page(session, caller.project, page)
    listed = list_of(rows, _uploaded, lambda row: row.id, request, response, asked=page)
    if not rows.has_more and page.before is None:
        listed.data.extend(_of_catalog(name) for name in PROMPT_SETS)
    return listed


@router.get("/prompt-sets/{prompt_set_id}", responses=refusals(404))
def retrieve_prompt_set(service: AnyService, caller: Reader, prompt_set_id: str) -> PromptSetAnswer:
    """A set by its id, or one of the catalog by its name."""
    if prompt_set_id in PROMPT_SETS:
        return _of_catalog(prompt_set_id)
    return _uploaded(_read(service, caller, prompt_set_id, prompt_sets.get))


@router.get("/prompt-sets/{prompt_set_id}/prompts", responses=refusals(404))
def list_prompts(
    service: AnyService,
    caller: Reader,
    prompt_set_id: str,
    offset: Annotated[int, Query(ge=0, le=MOST_INT, description="Prompts to skip.")] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_AT_ONCE)] = 100,
) -> PromptList:
    """The prompts themselves, in the order of the file."""
    if prompt_set_id in PROMPT_SETS:
        found = _local(prompt_set_id)
        if found is None:
            problem = "it is not on this machine yet"
            raise UserError("prompt_set_id", problem, "Name it in a job, which fetches it")
    else:
        found = _read(service, caller, prompt_set_id, prompt_sets.load)
    part = found.prompts[offset : offset + limit]
    return PromptList(
        data=[PromptAnswer(index=offset + at, text=text) for at, text in enumerate(part)],
        total=len(found.prompts),
        has_more=offset + len(part) < len(found.prompts),
    )


@router.delete("/prompt-sets/{prompt_set_id}", status_code=204, responses=refusals(404, 409))
def delete_prompt_set(service: AnyService, caller: Writer, prompt_set_id: str) -> None:
    """Forgets an uploaded set that no unfinished job names."""
    row_id = _ROW_ID.validate_python(prompt_set_id)
    service.database.transact(lambda session: prompt_sets.remove(session, row_id, caller.project))


def _read(service: Service, caller: Caller, prompt_set_id: str, look: Callable[..., _T]) -> _T:
    row_id = _ROW_ID.validate_python(prompt_set_id)
    with service.database.read() as session:
        return look(session, row_id, caller.project)


def _uploaded(row: PromptSetRow) -> PromptSetAnswer:
    return PromptSetAnswer(
        id=row.id,
        name=row.name,
        origin="uploaded",
        sha256=row.sha256,
        count=row.count,
        size_bytes=row.size_bytes,
        summary=None,
        licence=None,
        created_at=row.created_at,
    )


def _of_catalog(name: str) -> PromptSetAnswer:
    entry, found = PROMPT_SETS[name], _local(name)
    return PromptSetAnswer(
        id=name,
        name=name,
        origin="catalog",
        sha256=found.sha256 if found else None,
        count=len(found.prompts) if found else None,
        size_bytes=sum(len(text.encode()) for text in found.prompts) if found else None,
        summary=entry.summary,
        licence=entry.licence,
        created_at=None,
    )


def _local(name: str) -> PromptSet | None:
    """A set of the catalog, if reading it needs no download."""
    url = PROMPT_SETS[name].url
    if url is not None:
        suffix = PurePosixPath(urlsplit(url).path).suffix
        if not (settings().cache_dir / "prompts" / f"{name}{suffix}").is_file():
            return None
    return prompts.load(PromptSource(name=name))
