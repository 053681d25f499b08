"""What a monitor asks of all rows together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from store.models import Generation, Job
from store.states import TERMINAL, GenerationStatus, JobStatus


@dataclass(frozen=True, slots=True)
class Span:
    """When a row was made, first taken, and finished."""

    created_at: datetime
    started_at: datetime | None
    finished_at: datetime

    @property
    def waited_seconds(self) -> float | None:
        """From its creation to its first start; None if it never started."""
        return (self.started_at - self.created_at).total_seconds() if self.started_at else None

    @property
    def worked_seconds(self) -> float | None:
        """From its first start to its end; None if it never started."""
        return (self.finished_at - self.started_at).total_seconds() if self.started_at else None


def finished_jobs(session: Session) -> Mapping[tuple[JobStatus, str | None], int]:
    """Number of finished jobs by status and error code."""
    rows = session.execute(
        select(Job.status, Job.error_code, func.count())
        .where(Job.status.in_(TERMINAL))
        .group_by(Job.status, Job.error_code)
    )
    return {(status, code): count for status, code, count in rows}


def running_metrics(session: Session, most: int) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Id and latest metrics of the newest running jobs that have any."""
    rows = session.execute(
        select(Job.id, Job.latest_metrics)
        .where(Job.status == JobStatus.RUNNING, Job.latest_metrics.is_not(None))
        .order_by(Job.id.desc())
        .limit(most)
    )
    return tuple((job_id, metrics) for job_id, metrics in rows if metrics is not None)


def job_spans(session: Session, most: int) -> tuple[Span, ...]:
    """Times of the newest finished jobs."""
    return _spans(session, Job, Job.status.in_(TERMINAL), most)


def generation_spans(session: Session, most: int) -> tuple[Span, ...]:
    """Times of the newest generations that succeeded."""
    return _spans(session, Generation, Generation.status == GenerationStatus.SUCCEEDED, most)


def _spans(
    session: Session, table: type[Job | Generation], condition: ColumnElement[bool], most: int
) -> tuple[Span, ...]:
    rows = session.execute(
        select(table.created_at, table.started_at, table.finished_at)
        .where(condition)
        .order_by(table.id.desc())
        .limit(most)
    )
    return tuple(Span(made, started, ended) for made, started, ended in rows if ended is not None)
