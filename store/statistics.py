"""What a monitor asks of all rows together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, func, select, true
from sqlalchemy.orm import Session

from store.clock import seconds_between
from store.models import Generation, Job
from store.states import TERMINAL, GenerationStatus, JobStatus


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took, over all rows that tell it."""

    below: tuple[int, ...]
    """Of each border: how many took at most as long."""
    count: int
    total_seconds: float


def finished_jobs(session: Session) -> Mapping[tuple[JobStatus, str | None], int]:
    """Number of finished jobs by status and error code."""
    rows = session.execute(
        select(Job.status, Job.error_code, func.count())
        .where(Job.status.in_(TERMINAL))
        .group_by(Job.status, Job.error_code)
    )
    return {(status, code): count for status, code, count in rows}


def running_metrics(
    session: Session, most: int, project: str | None = None
) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Id and latest metrics of the newest running jobs that have any, of a project or of all."""
    of_project = true() if project is None else Job.project == project
    rows = session.execute(
        select(Job.id, Job.latest_metrics)
        .where(of_project)
        .where(Job.status == JobStatus.RUNNING, Job.latest_metrics.is_not(None))
        .order_by(Job.id.desc())
        .limit(most)
    )
    return tuple((job_id, metrics) for job_id, metrics in rows if metrics is not None)


def job_durations(session: Session, borders: Sequence[float]) -> Histogram:
    """Finished jobs, from their first start to their end."""
    done = Job.status.in_(TERMINAL)
    return _histogram(
        session, seconds_between(session, Job.started_at, Job.finished_at), done, borders
    )


def job_waits(session: Session, borders: Sequence[float]) -> Histogram:
    """Finished jobs, from their creation to their first start."""
    done = Job.status.in_(TERMINAL)
    return _histogram(
        session, seconds_between(session, Job.created_at, Job.started_at), done, borders
    )


def generation_durations(session: Session, borders: Sequence[float]) -> Histogram:
    """Generations that succeeded, from their first start to their end."""
    took = seconds_between(session, Generation.started_at, Generation.finished_at)
    done = Generation.status == GenerationStatus.SUCCEEDED
    return _histogram(session, took, done, borders)


def _histogram(
    session: Session,
    seconds: ColumnElement[float],
    condition: ColumnElement[bool],
    borders: Sequence[float],
) -> Histogram:
    """Rows without one of the two times count nowhere."""
    below = (func.count(case((seconds <= border, 1))) for border in borders)
    total = func.coalesce(func.sum(seconds), 0.0)
    *counts, count, sum_seconds = session.execute(
        select(*below, func.count(seconds), total).where(condition)
    ).one()
    return Histogram(tuple(counts), count, float(sum_seconds))
