"""How workers hold jobs: claim, renew, finish, give back, and what happens when they vanish.

A lease is a row's token, a deadline and an owner. Every write of a worker names its token, so one
that was thought dead and wakes up again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from shortft_core.events import RunStarted
from store.attempts import Ending, Limits, Tally
from store.clock import database_now
from store.errors import LeaseLostError
from store.models import Job, Worker, equals_inline
from store.states import HELD, JobStatus, Refusal, Trigger, next_state
from store.transitions import Entry, Lease, change, entry_of, insert_events, lock_held

LEASE_SECONDS: Final = 90.0
"""Production value: a worker renews every 15 s, its trainer stops itself at 0.8 of this."""
SWEEP_LIMIT: Final = 50


@dataclass(frozen=True, slots=True)
class Claim:
    """A job and the lease on it."""

    job: Job
    lease: Lease


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a worker says of an attempt that ended."""

    error_code: str | None = None
    error_message: str | None = None
    exit_cause: str | None = None
    log_tail: str | None = None

    def columns(self, *, failed: bool) -> dict[str, Any]:
        """The row's columns; an attempt that will be repeated leaves no error."""
        values = {"exit_cause": self.exit_cause, "log_tail": self.log_tail}
        if failed:
            values |= {"error_code": self.error_code, "error_message": self.error_message}
        return values


NOTHING_SAID: Final = Report()


def claim(
    session: Session,
    worker_id: str,
    resource_classes: Sequence[str],
    *,
    lease_seconds: float = LEASE_SECONDS,
) -> Claim | None:
    """Takes the first job that is due, or None; two workers never get the same one."""
    now = database_now(session)
    job = session.scalar(_claim_statement(worker_id, resource_classes, now, lease_seconds))
    if job is None:
        return None
    data = {"attempt": job.attempt, "worker_id": worker_id}
    insert_events(session, job, [Entry(f"job.{job.status}", data=data)], now)
    return Claim(job, Lease(job.id, job.lease_token, worker_id, job.attempt))


def _claim_statement(
    worker_id: str, resource_classes: Sequence[str], now: datetime, lease_seconds: float
) -> Any:
    due = (
        select(Job.id)
        .where(
            equals_inline(Job.status, JobStatus.QUEUED),
            Job.run_after <= now,
            Job.resource_class.in_(resource_classes),
        )
        .order_by(Job.priority.desc(), Job.id)
        .limit(1)
        # A row that another worker is about to take is passed over, not waited for.
        .with_for_update(skip_locked=True)
    )
    return (
        update(Job)
        .where(Job.id == due.scalar_subquery(), Job.status == JobStatus.QUEUED)
        .values(
            status=next_state(JobStatus.QUEUED, Trigger.CLAIM),
            lease_owner=worker_id,
            lease_token=Job.lease_token + 1,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
            heartbeat_at=now,
            attempt=Job.attempt + 1,
            claimed_update=Job.resumable_update,
            started_at=func.coalesce(Job.started_at, now),
            # Kept with the job: what it measures is true of this device, and workers are forgotten.
            device=select(Worker.device).where(Worker.id == worker_id).scalar_subquery(),
            updated_at=now,
            event_seq=Job.event_seq + 1,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def renew(session: Session, lease: Lease, *, lease_seconds: float = LEASE_SECONDS) -> JobStatus:
    """Moves the deadline and returns the status, which tells of a cancel or a pause.

    Raises LeaseLostError. An expired lease that nobody has taken yet is renewed.
    """
    now = database_now(session)
    status = session.scalar(
        update(Job)
        .where(*_is_held_by(lease))
        .values(lease_expires_at=now + timedelta(seconds=lease_seconds), heartbeat_at=now)
        .returning(Job.status)
        .execution_options(synchronize_session=False)
    )
    if status is None:
        raise LeaseLostError(lease.row_id, lease.token)
    return status


def control(session: Session, lease: Lease) -> JobStatus:
    """The status of a held job, by its primary key: cheap enough to ask every other second.

    Raises LeaseLostError.
    """
    status = session.scalar(select(Job.status).where(*_is_held_by(lease)))
    if status is None:
        raise LeaseLostError(lease.row_id, lease.token)
    return status


def start(session: Session, lease: Lease, event: RunStarted) -> Job:
    """The first update of the attempt begins; raises LeaseLostError or InvalidStateError."""
    job = lock_held(session, lease)
    return change(
        session, job, Trigger.START, entry_of(event), updates_total=event.updates, phase="train"
    )


def fail(session: Session, lease: Lease, report: Report) -> Job:
    """Ends the job for good; a job that is being cancelled or paused becomes that instead.

    Raises LeaseLostError.
    """
    job = lock_held(session, lease)
    if isinstance(next_state(job.status, Trigger.FAIL), Refusal):
        return change(session, job, Trigger.RELEASE, **report.columns(failed=False))
    return _fail(session, job, report)


def release(
    session: Session,
    lease: Lease,
    ending: Ending,
    report: Report = NOTHING_SAID,
    limits: Limits | None = None,
) -> Job:
    """Gives the job back without a result: queued again, cancelled, paused, or failed for good.

    Raises LeaseLostError.
    """
    job = lock_held(session, lease)
    return _end_attempt(session, job, ending, report, limits or Limits())


def sweep(
    session: Session, limits: Limits | None = None, *, limit: int = SWEEP_LIMIT
) -> tuple[Job, ...]:
    """Ends the attempts whose leases have expired; any number of sweepers may run at once."""
    now = database_now(session)
    expired = session.scalars(
        select(Job)
        .where(Job.status.in_(HELD), Job.lease_expires_at < now)
        .order_by(Job.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    report = Report(
        error_code="worker_lost",
        error_message="The workers of this job were lost again and again.",
        exit_cause="its worker was not heard of in time",
    )
    return tuple(
        _end_attempt(session, job, Ending.LEASE_EXPIRED, report, limits or Limits())
        for job in expired
    )


def unwoken(
    session: Session, *, every_seconds: float = 15.0, limit: int = SWEEP_LIMIT
) -> frozenset[str]:
    """Resource classes with due jobs that nobody was told of lately; marks those jobs as told.

    The caller wakes these workers after the commit: a wake-up that is lost comes again.
    """
    now = database_now(session)
    recently = now - timedelta(seconds=every_seconds)
    due = (
        select(Job.id)
        .where(
            equals_inline(Job.status, JobStatus.QUEUED),
            Job.run_after <= now,
            (Job.woken_at.is_(None)) | (Job.woken_at <= recently),
        )
        .order_by(Job.priority.desc(), Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    told = session.scalars(
        update(Job)
        .where(Job.id.in_(session.scalars(due).all()), Job.status == JobStatus.QUEUED)
        .values(woken_at=now)
        .returning(Job.resource_class)
        .execution_options(synchronize_session=False)
    )
    return frozenset(told)


def is_due(session: Session) -> bool:
    """Whether a worker of some resource class could claim a job now."""
    now = database_now(session)
    statement = (
        select(Job.id)
        .where(equals_inline(Job.status, JobStatus.QUEUED), Job.run_after <= now)
        .limit(1)
    )
    return session.scalar(statement) is not None


def _is_held_by(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == lease.row_id,
        Job.lease_token == lease.token,
        Job.status.in_(HELD),
    )


def _end_attempt(session: Session, job: Job, ending: Ending, report: Report, limits: Limits) -> Job:
    """Counts the attempt and moves a locked job on."""
    before = Tally(attempt=job.attempt, crashes=job.crashes, lost_leases=job.lost_leases)
    progressed = job.resumable_update > job.claimed_update
    # A pause or a cancel that the worker carried out is not its failure.
    to = next_state(job.status, Trigger.RELEASE)
    tally = before.after(
        ending if to is JobStatus.QUEUED else Ending.STOPPED, progressed=progressed
    )
    counters: dict[str, Any] = {
        "attempt": tally.attempt,
        "crashes": tally.crashes,
        "lost_leases": tally.lost_leases,
        # Fences the holder of an expired lease at once, not only when the next one claims.
        "lease_token": job.lease_token + (ending is Ending.LEASE_EXPIRED),
    }
    if to is not JobStatus.QUEUED:
        return change(session, job, Trigger.RELEASE, **counters, **report.columns(failed=False))
    reached = tally.exhausted(limits)
    if reached is not None:
        return _fail(session, job, report, reached, **counters)
    run_after = database_now(session) + tally.backoff(limits)
    entry = _requeued(ending, tally, report, run_after)
    values = {"run_after": run_after, "woken_at": None, "phase": None}
    return change(
        session, job, Trigger.RELEASE, entry, **values, **counters, **report.columns(failed=False)
    )


def _fail(
    session: Session, job: Job, report: Report, limit_reached: str | None = None, **values: Any
) -> Job:
    columns = report.columns(failed=True)
    columns["error_code"] = columns["error_code"] or limit_reached or "internal"
    message = report.error_message or "The job failed."
    data = {"error_code": columns["error_code"], "limit_reached": limit_reached}
    entry = Entry("job.failed", message, "error", data)
    return change(session, job, Trigger.FAIL, entry, **values, **columns)


def _requeued(ending: Ending, tally: Tally, report: Report, run_after: datetime) -> Entry:
    data = {
        "ending": ending.value,
        "exit_cause": report.exit_cause,
        "crashes": tally.crashes,
        "lost_leases": tally.lost_leases,
        "run_after": run_after.isoformat(),
    }
    if ending is Ending.STOPPED:
        return Entry("job.queued", "The worker stopped in order; the job goes on later.", data=data)
    return Entry("job.retrying", "The attempt ended; the job goes on later.", "warn", data)
