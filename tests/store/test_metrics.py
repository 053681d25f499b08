from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core.errors import UserError
from shortft_core.events import EvaluationDone, Score, StepMetrics
from store import events, metrics
from store.metrics import Point, thin

if TYPE_CHECKING:
    from tests.store.conftest import Bench

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _step(update: int, loss: float) -> StepMetrics:
    return StepMetrics(
        update=update,
        loss=loss,
        reward=-loss,
        terms={"symmetry": 1.0},
        grad_norms={1: 0.5},
        learning_rate=1e-3,
        seconds=0.5,
        evaluations_with_gradient=1.0,
        evaluations_without_gradient=49.0,
        images_seen=4 * update,
    )


@given(st.lists(st.floats(-1e6, 1e6), max_size=200), st.integers(4, 60))
def test_thinning_keeps_ends_extremes_and_order(values: list[float], max_points: int) -> None:
    points = [Point(update, value, NOW) for update, value in enumerate(values)]
    kept = thin(points, max_points)
    assert len(kept) <= max(max_points, 0)
    assert set(kept) <= set(points)
    assert [point.update for point in kept] == sorted({point.update for point in kept})
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert min(point.value for point in kept) == min(values)
        assert max(point.value for point in kept) == max(values)


def test_a_short_curve_is_not_thinned() -> None:
    points = tuple(Point(update, 0.0, NOW) for update in range(10))
    assert thin(points, 10) == points
    assert len(thin(points, 9)) <= 9


def test_curves_of_a_job(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    score = Score(mean=0.25, std=0.5)
    evaluation = EvaluationDone(update=2, images=4, base={"x": score}, tuned={"x": score})
    with bench.database.write() as session:
        steps = [_step(1, 0.1), _step(2, float("nan")), _step(3, 0.3)]
        events.append(session, lease, [*steps, evaluation])
    with bench.database.read() as session:
        found = metrics.series(session, job.id)
        some = metrics.series(session, job.id, ["loss"], since_update=1)
        thinned = metrics.series(session, job.id, ["reward", "seconds"], max_points=4)
        with pytest.raises(UserError, match="3 is too few"):
            metrics.series(session, job.id, max_points=3)
    assert [(point.update, point.value) for point in found["loss"].points] == [(1, 0.1), (3, 0.3)]
    assert [point.value for point in found["terms/symmetry"].points] == [1.0] * 3
    assert [point.value for point in found["grad_norms/1"].points] == [0.5] * 3
    assert [(point.update, point.value) for point in found["tuned/x/mean"].points] == [(2, 0.25)]
    assert "update" not in found
    assert "is_best" not in found
    assert list(some) == ["loss"]
    assert [point.update for point in some["loss"].points] == [3]
    assert set(thinned) == {"reward", "seconds"}
    assert not thinned["seconds"].is_thinned


def test_an_update_that_was_repeated_counts_once(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    with bench.database.write() as session:
        steps = [_step(1, 0.1), _step(2, 0.2), _step(3, 0.3), _step(2, 0.9), _step(3, 0.4)]
        events.append(session, lease, steps)
    with bench.database.read() as session:
        points = metrics.series(session, job.id, ["loss"])["loss"].points
    assert [(point.update, point.value) for point in points] == [(1, 0.1), (2, 0.9), (3, 0.4)]
