"""A run folder read back: one timeline, whatever crashes and resumes left in its events."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shortft_core.errors import ArtifactError, UserError
from shortft_core.events import RunFinished, RunStarted, StepMetrics
from shortft_core.report.log import read_run

Write = Callable[..., Path]
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def started(seconds: float, first_update: int = 1) -> RunStarted:
    moment = BEGAN + timedelta(seconds=seconds)
    return RunStarted(created_at=moment, spec_sha256="a", updates=9, first_update=first_update)


def made(seconds: float, update: int, wall_seconds: float = 0.0) -> StepMetrics:
    return StepMetrics(
        created_at=BEGAN + timedelta(seconds=seconds),
        update=update,
        loss=0.0,
        reward=seconds,
        terms={},
        grad_norms={},
        learning_rate=1e-3,
        seconds=1.0,
        evaluations_with_gradient=1,
        evaluations_without_gradient=1,
        images_seen=update,
        wall_seconds=wall_seconds,
    )


def wall(folder: Path) -> list[float]:
    log = read_run(folder)
    return [log.wall_seconds[step.created_at] for step in log.steps]


def test_an_update_that_a_resume_repeats_counts_once(write: Write) -> None:
    events = [started(0), made(1, 1), made(2, 2), made(3, 3), started(50, 2), made(51, 2)]
    log = read_run(write(events))
    assert [(step.update, step.reward) for step in log.steps] == [(1, 1), (2, 51), (3, 3)]


def test_wall_time_of_runs_that_did_not_record_it_leaves_out_breaks(write: Write) -> None:
    events: Sequence[RunStarted | StepMetrics] = [
        started(0),
        made(4, 1),
        made(6, 2),
        started(100, 3),
        made(103, 3),
    ]
    assert wall(write(events)) == [4.0, 6.0, 9.0]


def test_recorded_wall_time_is_believed(write: Write) -> None:
    events = [started(0), made(4, 1, wall_seconds=5.0), started(100, 2), made(101, 2, 7.5)]
    assert wall(write(events)) == [5.0, 7.5]


def test_events_after_an_update_count_on_from_it(write: Write) -> None:
    end = RunFinished(
        created_at=BEGAN + timedelta(seconds=14), outcome="stopped", updates=1, seconds=15
    )
    log = read_run(write([started(0), made(4, 1, wall_seconds=5.0), end]))
    assert log.wall_seconds[end.created_at] == 15.0


def test_a_run_that_was_started_again_has_not_finished(write: Write) -> None:
    end = RunFinished(outcome="stopped", updates=1, seconds=1)
    folder = write([started(0), made(1, 1), end])
    assert read_run(folder).finished == end
    assert read_run(write([started(50, 2)])).finished is None


def test_stages_begin_where_their_number_changes(whole_run: Path) -> None:
    log = read_run(whole_run)
    assert log.stage_borders == (3,)
    assert log.best is log.evaluations[0]


def test_changes_are_those_of_the_stored_pictures(whole_run: Path) -> None:
    found = read_run(whole_run).changes(2)
    assert found["target"].mean == 0.25
    assert found["target"].half_width == pytest.approx(12.706205 * 0.125)
    assert found["oracle"].mean == 0.0
    assert read_run(whole_run).changes(3) == {}


def test_cards_of_written_adapters_are_read(whole_run: Path) -> None:
    assert read_run(whole_run).cards() == {}
    (whole_run / "best").mkdir()
    (whole_run / "best" / "shortft.json").write_text(json.dumps({"rank": 4}))
    assert read_run(whole_run).cards() == {"best": {"rank": 4}}


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no spec\.json. Name the folder of a run"):
        read_run(tmp_path)


def test_a_torn_specification_is_named(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"spec\.json is not JSON"):
        read_run(tmp_path)
