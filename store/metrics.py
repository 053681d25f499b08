"""Curves of a job out of its history, thinned so that no peak is lost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from shortft_core.errors import UserError
from store.models import JobEvent

_TYPES: Final = ("job.metrics", "job.eval")
_FEWEST_POINTS: Final = 4


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a curve."""

    update: int
    value: float
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Series:
    """One curve, by update."""

    points: tuple[Point, ...]
    is_thinned: bool


def series(
    session: Session,
    job_id: str,
    keys: Sequence[str] = (),
    *,
    since_update: int = 0,
    max_points: int = 2000,
) -> dict[str, Series]:
    """Curves after `since_update`; keys are paths such as `loss`, `terms/hps_v2`, `tuned/x/mean`.

    Without keys, all curves. Where an update was repeated after a crash, the later one counts.
    Raises UserError for too few points.
    """
    if max_points < _FEWEST_POINTS:
        raise UserError("max_points", f"{max_points} is too few", f"Ask for {_FEWEST_POINTS}")
    curves: dict[str, dict[int, Point]] = {}
    for data, created_at in _reports(session, job_id, since_update):
        update = data["update"]
        for key, value in _flatten(data):
            if not keys or key in keys:
                curves.setdefault(key, {})[update] = Point(update, value, created_at)
    return {key: _series(list(curve.values()), max_points) for key, curve in curves.items()}


def thin(points: Sequence[Point], max_points: int) -> tuple[Point, ...]:
    """At most `max_points` of them: the ends, and the lowest and highest of each equal stretch.

    `points` are ordered by update; `max_points` is at least 4. Unlike every n-th point, this keeps
    each extreme value.
    """
    if len(points) <= max_points:
        return tuple(points)
    first, *inner, last = points
    stretches = (max_points - 2) // 2
    kept = [first]
    for index in range(stretches):
        start, stop = (len(inner) * end // stretches for end in (index, index + 1))
        stretch = inner[start:stop]
        extremes = {_lowest(stretch), _highest(stretch)}
        kept += sorted(extremes, key=lambda point: point.update)
    return (*kept, last)


def _lowest(points: Sequence[Point]) -> Point:
    return min(points, key=lambda point: point.value)


def _highest(points: Sequence[Point]) -> Point:
    return max(points, key=lambda point: point.value)


def _series(points: list[Point], max_points: int) -> Series:
    ordered = sorted(points, key=lambda point: point.update)
    return Series(thin(ordered, max_points), len(ordered) > max_points)


def _reports(
    session: Session, job_id: str, since_update: int
) -> Iterator[tuple[dict[str, Any], datetime]]:
    rows = session.execute(
        select(JobEvent.data, JobEvent.created_at)
        .where(
            JobEvent.job_id == job_id,
            JobEvent.type.in_(_TYPES),
            JobEvent.data["update"].as_integer() > since_update,
        )
        .order_by(JobEvent.seq)
    )
    return ((data, created_at) for data, created_at in rows)


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Finite numbers by their paths; events write others as text, and no curve can show them."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        elif name != "update" and _is_finite_number(value):
            yield f"{prefix}{name}", float(value)


def _is_finite_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value)
