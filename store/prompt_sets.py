"""Prompt sets that users upload and jobs name by id."""

from __future__ import annotations

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, undefer

from shortft_core.prompts import PromptSet
from store.clock import database_now
from store.errors import InUseError, NameTakenError, NotFoundError
from store.ids import new_id
from store.models import Job, PromptSetRow
from store.pages import Page, PageRequest, fetch_page
from store.states import TERMINAL


def create(
    session: Session, project: str, name: str, prompts: PromptSet, *, row_id: str | None = None
) -> PromptSetRow:
    """Keeps a set under a name that is free in the project; raises NameTakenError."""
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
        raise NameTakenError("prompt set", name) from error
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


def hold(session: Session, prompt_set_id: str, project: str) -> None:
    """Keeps the set until this transaction ends, as for a job that names it; raises NotFoundError.

    Others may hold it too, but nobody may remove it; SQLite has one writer at a time anyway.
    """
    mine = (PromptSetRow.id == prompt_set_id, PromptSetRow.project == project)
    held = select(PromptSetRow.id).where(*mine).with_for_update(read=True, key_share=True)
    if session.scalar(held) is None:
        raise NotFoundError("prompt set", prompt_set_id)


def remove(session: Session, prompt_set_id: str, project: str) -> None:
    """Forgets a set; jobs that have begun keep their own copy.

    Raises NotFoundError, and InUseError while a job names it that may have yet to copy it.
    """
    row = get(session, prompt_set_id, project)
    # First, for it waits for those who hold the set: their jobs are seen after it.
    session.execute(delete(PromptSetRow).where(PromptSetRow.id == row.id))
    job_id = _unfinished_reader(session, prompt_set_id, project)
    if job_id is not None:
        raise InUseError("prompt set", prompt_set_id, job_id)


def _unfinished_reader(session: Session, prompt_set_id: str, project: str) -> str | None:
    sources = (Job.spec["prompts", "id"], Job.spec["evaluation", "prompts", "id"])
    named = or_(*(source.as_string() == prompt_set_id for source in sources))
    unfinished = (Job.project == project, Job.status.not_in(TERMINAL))
    return session.scalar(select(Job.id).where(*unfinished, named).order_by(Job.id).limit(1))


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
