"""What a monitor asks of all rows together; finished ones count for ever, deleted or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, func, select, true
from sqlalchemy.orm import Session

from store.clock import seconds_between
from store.models import Generation, Job
from store.states import OPEN_GENERATION, GenerationStatus, JobStatus
from store.tombstones import ever_finished


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took, over all rows that tell it."""

    below: tuple[int, ...]
    """Of each border: how many took at most as long."""
    count: int
    total_seconds: float


def finished_jobs(session: Session) -> Mapping[tuple[JobStatus, str | None], int]:
    """Number of finished jobs by status and error code."""
    ended = ever_finished(Job).c
    rows = session.execute(
        select(ended.status, ended.error_code, func.count()).group_by(
            ended.status, ended.error_code
        )
    )
    return {(status, code): count for status, code, count in rows}


def finished_generations(session: Session) -> Mapping[GenerationStatus, int]:
    """Number of finished generations by status, with 0 where there are none."""
    ended = ever_finished(Generation).c
    rows = session.execute(select(ended.status, func.count()).group_by(ended.status))
    return dict.fromkeys(set(GenerationStatus) - OPEN_GENERATION, 0) | dict(rows.all())


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
    ended = ever_finished(Job).c
    return _histogram(
        session, seconds_between(session, ended.started_at, ended.finished_at), true(), borders
    )


def job_waits(session: Session, borders: Sequence[float]) -> Histogram:
    """Finished jobs, from their creation to their first start."""
    ended = ever_finished(Job).c
    return _histogram(
        session, seconds_between(session, ended.created_at, ended.started_at), true(), borders
    )


def generation_durations(session: Session, borders: Sequence[float]) -> Histogram:
    """Generations that succeeded, from their first start to their end."""
    ended = ever_finished(Generation).c
    took = seconds_between(session, ended.started_at, ended.finished_at)
    done = ended.status == GenerationStatus.SUCCEEDED
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
