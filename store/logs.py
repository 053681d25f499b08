"""What a job's process wrote beside its events: numbered lines, of which the newest are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from store.clock import database_now
from store.errors import LeaseLostError
from store.models import Job, JobLog
from store.states import HELD
from store.transitions import Lease

MOST_LINES: Final = 20_000
"""Of one job; the oldest go first."""
LONGEST_LINE: Final = 4096
"""Characters of a line that are kept."""


def append(session: Session, lease: Lease, lines: Sequence[str]) -> int:
    """Adds lines and returns the number of the last one; raises LeaseLostError."""
    now = database_now(session)
    last = session.scalar(
        update(Job)
        .where(Job.id == lease.row_id, Job.lease_token == lease.token, Job.status.in_(HELD))
        .values(log_number=Job.log_number + len(lines))
        .returning(Job.log_number)
        .execution_options(synchronize_session=False)
    )
    if last is None:
        raise LeaseLostError(lease.row_id, lease.token)
    rows = [
        {
            "job_id": lease.row_id,
            "number": number,
            "attempt": lease.attempt,
            "text": line[:LONGEST_LINE],
            "created_at": now,
        }
        for number, line in enumerate(lines, start=last - len(lines) + 1)
    ]
    if rows:
        session.execute(insert(JobLog), rows[-MOST_LINES:])
        too_old = [JobLog.job_id == lease.row_id, JobLog.number <= last - MOST_LINES]
        session.execute(delete(JobLog).where(*too_old))
    return last


def after(
    session: Session, job_id: str, number: int = 0, *, limit: int = 500
) -> tuple[JobLog, ...]:
    """Lines with numbers above `number`, in order: what a reader that has seen it lacks."""
    statement = (
        select(JobLog)
        .where(JobLog.job_id == job_id, JobLog.number > number)
        .order_by(JobLog.number)
        .limit(limit)
    )
    return tuple(session.scalars(statement))


def tail(session: Session, job_id: str, count: int) -> tuple[JobLog, ...]:
    """The last `count` lines, in order."""
    statement = (
        select(JobLog).where(JobLog.job_id == job_id).order_by(JobLog.number.desc()).limit(count)
    )
    return tuple(session.scalars(statement))[::-1]
