"""Jobs as users see them: create, read, list, and the verbs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from shortft_core.errors import UserError
from shortft_core.spec import AlignSpec, DistilSpec
from store import tombstones
from store.clock import database_now
from store.errors import InvalidStateError, NotFoundError, QuotaExceededError
from store.ids import new_id
from store.models import ApiKey, Checkpoint, Job, equals_inline
from store.pages import Page, PageRequest, fetch_page
from store.states import TERMINAL, JobStatus, Trigger, Verb, allowed
from store.transitions import Entry, change, insert_events, lock_job

DEFAULT_PROJECT: Final = "default"
_HIGHEST_PRIORITY: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob:
    """A resolved specification and who asks for it."""

    spec: AlignSpec | DistilSpec
    id: str = field(default_factory=lambda: new_id("job"))
    project: str = DEFAULT_PROJECT
    api_key_id: str | None = None
    priority: int = 0
    resource_class: str = "default"


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """Who asks for a job once more; everything else is the first one's."""

    id: str = field(default_factory=lambda: new_id("job"))
    api_key_id: str | None = None
    most_open: int | None = None
    """Unfinished jobs that the key may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFilter:
    """Which jobs of a project; None and empty for all."""

    project: str = DEFAULT_PROJECT
    statuses: frozenset[JobStatus] = frozenset()
    kind: str | None = None
    base_model: str | None = None
    method: str | None = None
    reward: str | None = None
    """A reward that a job is tuned towards."""
    created_after: datetime | None = None
    created_before: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that a job must have."""
    text: str | None = None
    """Part of the name, in any case."""


def create(session: Session, new: NewJob, *, most_open: int | None = None) -> Job:
    """A queued job and its first event.

    Raises UserError for what no row can hold, and QuotaExceededError if its API key has `most_open`
    unfinished jobs already.
    """
    check_quota(session, new.api_key_id, most_open)
    return _insert(session, new)


def get(session: Session, job_id: str, project: str = DEFAULT_PROJECT) -> Job:
    """The job with its artifacts and adapter; raises NotFoundError, for others' jobs too."""
    found = session.scalar(
        select(Job)
        .where(Job.id == job_id, Job.project == project)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFoundError("job", job_id)
    return with_result(session, found)


def get_many(session: Session, job_ids: Collection[str]) -> dict[str, Job]:
    """Those of these jobs that exist, of any project, with their artifacts and adapters."""
    found = session.scalars(select(Job).where(Job.id.in_(job_ids))).all()
    return {job.id: with_result(session, job) for job in found}


def with_result(session: Session, job: Job) -> Job:
    """The job with its artifacts and adapter, which nobody asks for before there can be any."""
    if job.status is JobStatus.SUCCEEDED:
        session.refresh(job, ["artifacts", "adapter"])
    else:
        set_committed_value(job, "artifacts", [])
        set_committed_value(job, "adapter", None)
    return job


def page(session: Session, wanted: JobFilter, request: PageRequest) -> Page[Job]:
    """The jobs that fit, page by page, with their artifacts and adapters."""
    statement = (
        select(Job)
        .where(*_conditions(wanted), *_rewarded(session, wanted.reward))
        .options(selectinload(Job.artifacts), selectinload(Job.adapter))
    )
    return fetch_page(session, statement, Job.id, request)


def queue_positions(session: Session, queued: Collection[Job]) -> dict[str, int]:
    """How many queued jobs are claimed before each of these, which are queued."""
    ids = [job.id for job in queued]
    return dict(session.execute(_positions(), {"ids": ids}).all())


@cache
def _positions() -> Select[str, int]:
    """Built once: to write it down takes longer than to answer it."""
    other = aliased(Job)
    is_earlier = or_(
        other.priority > Job.priority, and_(other.priority == Job.priority, other.id < Job.id)
    )
    count = select(func.count()).where(
        equals_inline(other.status, JobStatus.QUEUED),
        other.resource_class == Job.resource_class,
        is_earlier,
    )
    wanted = Job.id.in_(bindparam("ids", expanding=True))
    return select(Job.id, count.scalar_subquery()).where(wanted)


def count_by_status(session: Session) -> dict[JobStatus, int]:
    """How many jobs of all projects are in each status, with 0 where there are none."""
    rows = session.execute(select(Job.status, func.count()).group_by(Job.status))
    return dict.fromkeys(JobStatus, 0) | dict(rows.all())


def queue_depths(session: Session) -> dict[str, int]:
    """How many jobs wait for each resource class, without classes that nothing waits for."""
    rows = session.execute(
        select(Job.resource_class, func.count())
        .where(equals_inline(Job.status, JobStatus.QUEUED))
        .group_by(Job.resource_class)
    )
    return dict(rows.all())


def count_open(session: Session, api_key_id: str) -> int:
    """How many jobs of this key are not finished: what its limit is compared with."""
    return session.scalars(
        select(func.count())
        .select_from(Job)
        .where(Job.api_key_id == api_key_id, Job.status.not_in(TERMINAL))
    ).one()


def check_quota(
    session: Session,
    api_key_id: str | None,
    most_open: int | None,
    *,
    what: str = "jobs",
    count: Callable[[Session, str], int] = count_open,
) -> None:
    """Raises QuotaExceededError if the key has `most_open` unfinished ones of what is counted.

    Call it in the transaction that creates one more.
    """
    if api_key_id is None or most_open is None:
        return
    # The key's row is locked, or two requests at once would both see the last free place.
    session.execute(select(ApiKey.id).where(ApiKey.id == api_key_id).with_for_update())
    used = count(session, api_key_id)
    if used >= most_open:
        raise QuotaExceededError(what, most_open, used)


def cancel(session: Session, job_id: str) -> Job:
    """Ends the job: at once, or as soon as its worker has let go; raises InvalidStateError."""
    job = lock_job(session, job_id)
    return change(session, job, Trigger.CANCEL, cancel_requested_at=database_now(session))


def pause(session: Session, job_id: str) -> Job:
    """Stops the job until it is resumed, with a checkpoint if it runs; raises InvalidStateError."""
    job = lock_job(session, job_id)
    return change(session, job, Trigger.PAUSE, pause_requested_at=database_now(session))


def resume(session: Session, job_id: str) -> Job:
    """Queues a paused job again; raises InvalidStateError."""
    job = lock_job(session, job_id)
    now = database_now(session)
    again = {"pause_requested_at": None, "run_after": now, "woken_at": None}
    return change(session, job, Trigger.RESUME, Entry("job.resumed"), **again)


def retry(session: Session, job_id: str, asked: Repeat | None = None) -> Job:
    """A new job that goes on from the last checkpoint of one that failed or was cancelled.

    Its parent is the job whose checkpoint that is: a retry without one of its own passes on what it
    was to go on from. Raises InvalidStateError and QuotaExceededError.
    """
    job = _require(session, job_id, Verb.RETRY)
    newest = session.scalar(select(func.max(Checkpoint.update)).where(Checkpoint.job_id == job.id))
    parent_id = job.id
    # The update outlives a parent that was deleted.
    if newest is None and job.parent_id is not None and job.parent_update is not None:
        parent_id, newest = job.parent_id, job.parent_update
    return _again(session, job, asked or Repeat(), parent_id=parent_id, parent_update=newest)


def rerun(session: Session, job_id: str, asked: Repeat | None = None) -> Job:
    """A new job that does what a finished one did, from the start; errors as in `retry`."""
    job = _require(session, job_id, Verb.RERUN)
    return _again(session, job, asked or Repeat(), parent_id=job.id, parent_update=None)


def reprioritize(session: Session, job_id: str, priority: int) -> Job:
    """Moves a job that is not finished within the queue; raises InvalidStateError, UserError."""
    _check_priority(priority)
    job = lock_job(session, job_id)
    if job.status in TERMINAL:
        raise InvalidStateError("job", job.id, job.status, "prioritize", allowed(job.status))
    return _edit(session, job, priority=priority)


def relabel(session: Session, job_id: str, labels: Mapping[str, str]) -> Job:
    """Replaces the caller's labels, in any state; raises UserError."""
    _check_labels(labels)
    return _edit(session, lock_job(session, job_id), labels=dict(labels))


def remove(session: Session, job_id: str) -> None:
    """Forgets a finished job and all rows about it; its objects are deleted after the commit.

    Raises InvalidStateError, also while a retry of it needs its checkpoint or a rerun its prompts.
    """
    job = _require(session, job_id, Verb.DELETE)
    if _is_needed(session, job):
        others = tuple(verb for verb in allowed(job.status) if verb is not Verb.DELETE)
        raise InvalidStateError("job", job.id, job.status, Verb.DELETE, others)
    tombstones.leave(session, Job, [job.id])
    session.execute(delete(Job).where(Job.id == job.id))


def _is_needed(session: Session, job: Job) -> bool:
    """Whether a child has yet to copy its prompts, or to write a checkpoint of its own."""
    needs = and_(Job.parent_update.is_not(None), Job.resumable_update == 0)
    sources = (job.spec["prompts"], job.spec["evaluation"]["prompts"] or {})
    if any(source.get("id") for source in sources):
        needs = or_(needs, Job.started_at.is_(None))
    children = select(Job.id).where(Job.parent_id == job.id, needs, Job.status.not_in(TERMINAL))
    return session.scalars(children.limit(1)).first() is not None


def _require(session: Session, job_id: str, verb: Verb) -> Job:
    job = lock_job(session, job_id)
    if verb not in allowed(job.status):
        raise InvalidStateError("job", job.id, job.status, verb, allowed(job.status))
    return job


def _again(
    session: Session, job: Job, asked: Repeat, *, parent_id: str, parent_update: int | None
) -> Job:
    check_quota(session, asked.api_key_id, asked.most_open)
    copied = (
        "project", "kind", "name", "labels", "spec", "spec_sha256", "base_model", "method",
        "resource_class", "priority",
    )  # fmt: skip
    values = {name: getattr(job, name) for name in copied}
    values |= {"parent_id": parent_id, "parent_update": parent_update}
    return _insert_row(session, asked.id, {**values, "api_key_id": asked.api_key_id})


def _insert(session: Session, new: NewJob) -> Job:
    spec = new.spec
    _check_priority(new.priority)
    _check_labels(spec.metadata)
    values = {
        "project": new.project,
        "api_key_id": new.api_key_id,
        "kind": spec.kind,
        "name": spec.name,
        "labels": spec.metadata,
        "spec": spec.model_dump(mode="json"),
        "spec_sha256": spec.sha256(),
        "base_model": str(spec.base_model),
        "method": spec.method.type if isinstance(spec, AlignSpec) else None,
        "resource_class": new.resource_class,
        "priority": new.priority,
    }
    return _insert_row(session, new.id, values)


def _insert_row(session: Session, job_id: str, values: dict[str, Any]) -> Job:
    now = database_now(session)
    times = {"created_at": now, "updated_at": now, "run_after": now}
    row = {"id": job_id, "status": JobStatus.QUEUED, "event_seq": 1, **times, **values}
    job = session.scalars(insert(Job).returning(Job), [row]).one()
    data = {"parent_id": job.parent_id} if job.parent_id else {}
    insert_events(session, job, [Entry("job.created", data=data)], now)
    return job


def _edit(session: Session, job: Job, **values: Any) -> Job:
    return session.scalars(
        update(Job)
        .where(Job.id == job.id)
        .values({getattr(Job, name): value for name, value in values.items()})
        .values(updated_at=database_now(session))
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one()


def _check_priority(priority: int) -> None:
    if abs(priority) > _HIGHEST_PRIORITY:
        raise UserError(
            "priority", f"{priority} is too far from 0", f"Stay within ±{_HIGHEST_PRIORITY}"
        )


def _check_labels(labels: Mapping[str, str]) -> None:
    # PostgreSQL stores such a label, and then cannot compare it.
    if any("\0" in text for label in labels.items() for text in label):
        raise UserError("metadata", "a label holds a NUL character", "Remove it")


def _conditions(wanted: JobFilter) -> tuple[ColumnElement[bool], ...]:
    equal = {"kind": wanted.kind, "base_model": wanted.base_model, "method": wanted.method}
    conditions = [Job.project == wanted.project]
    conditions += [getattr(Job, name) == value for name, value in equal.items() if value]
    if wanted.statuses:
        conditions.append(Job.status.in_(wanted.statuses))
    if wanted.created_after:
        conditions.append(Job.created_at > wanted.created_after)
    if wanted.created_before:
        conditions.append(Job.created_at < wanted.created_before)
    if wanted.text:
        conditions.append(Job.name.icontains(wanted.text, autoescape=True))
    conditions += [Job.labels[key].as_string() == text for key, text in wanted.labels.items()]
    return tuple(conditions)


def _rewarded(session: Session, reward: str | None) -> tuple[ColumnElement[bool], ...]:
    """Looks into the specification, which each database unfolds by a function of its own."""
    if reward is None:
        return ()
    name: ColumnElement[Any]
    if session.get_bind().dialect.name == "sqlite":
        each = func.json_each(Job.spec, "$.rewards").table_valued("value", name="reward")
        name = func.json_extract(each.c.value, "$.name")
    else:
        each = func.json_array_elements(Job.spec["rewards"]).table_valued("value", name="reward")
        name = each.c.value.op("->>")("name")
    return (exists(select(literal(1)).select_from(each).where(name == reward)),)
