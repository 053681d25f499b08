"""Prompt sets that users upload and jobs name by id."""

from __future__ import annotations

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, undefer

from shortft_core.errors import UserError
from shortft_core.prompts import PromptSet
from store.clock import database_now
from store.errors import NotFoundError
from store.ids import new_id
from store.models import Job, PromptSetRow
from store.pages import Page, PageRequest, fetch_page
from store.states import TERMINAL


def create(
    session: Session, project: str, name: str, prompts: PromptSet, *, row_id: str | None = None
) -> PromptSetRow:
    """Keeps a set under a name that is free in the project; raises UserError if it is taken."""
    row = {
        "id": row_id or new_id("ps"),
        "project": project,
        "name": name,
        "sha256": prompts.sha256,
        "count": len(prompts.prompts),
        "size_bytes": sum(len(prompt.encode()) for prompt in prompts.prompts),
        "prompts": list(prompts.prompts),
        "created_at": database_now(session),
    }
    try:
        with session.begin_nested():
            session.execute(insert(PromptSetRow), [row])
    except IntegrityError as error:
        raise UserError("name", f"there is a prompt set {name!r}", "Choose another name") from error
    return get(session, str(row["id"]), project)


def get(session: Session, prompt_set_id: str, project: str) -> PromptSetRow:
    """The set without its prompts; raises NotFoundError."""
    return _find(session, prompt_set_id, project, with_prompts=False)


def load(session: Session, prompt_set_id: str, project: str) -> PromptSet:
    """The prompts themselves, as the core reads them from a file; raises NotFoundError."""
    row = _find(session, prompt_set_id, project, with_prompts=True)
    return PromptSet(prompts=tuple(row.prompts), sha256=row.sha256)


def page(session: Session, project: str, request: PageRequest) -> Page[PromptSetRow]:
    """The sets of a project without their prompts, page by page."""
    statement = select(PromptSetRow).where(PromptSetRow.project == project)
    return fetch_page(session, statement, PromptSetRow.id, request)


def unfinished_reader(session: Session, prompt_set_id: str, project: str) -> str | None:
    """Id of a job that names the set and is not finished: it may have yet to copy the prompts."""
    sources = (Job.spec["prompts", "id"], Job.spec["evaluation", "prompts", "id"])
    named = or_(*(source.as_string() == prompt_set_id for source in sources))
    unfinished = (Job.project == project, Job.status.not_in(TERMINAL))
    return session.scalar(select(Job.id).where(*unfinished, named).order_by(Job.id).limit(1))


def remove(session: Session, prompt_set_id: str, project: str) -> None:
    """Forgets a set; jobs that have begun keep their own copy. Raises NotFoundError."""
    row = get(session, prompt_set_id, project)
    session.execute(delete(PromptSetRow).where(PromptSetRow.id == row.id))


def _find(
    session: Session, prompt_set_id: str, project: str, *, with_prompts: bool
) -> PromptSetRow:
    statement = select(PromptSetRow).where(
        PromptSetRow.id == prompt_set_id, PromptSetRow.project == project
    )
    if with_prompts:
        statement = statement.options(undefer(PromptSetRow.prompts))
    found = session.scalar(statement.execution_options(populate_existing=True))
    if found is None:
        raise NotFoundError("prompt set", prompt_set_id)
    return found
