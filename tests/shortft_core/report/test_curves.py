"""What the charts of a report draw: the run's own numbers, over updates and over wall time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shortft_core.report.curves import (
    clocks,
    gradient_curve,
    judge_curves,
    moving_mean,
    reward_curve,
    share_curve,
    statistic_curves,
)
from shortft_core.report.log import read_run


def test_the_mean_begins_with_the_first_full_window() -> None:
    points = [(1.0, 1.0), (2.0, 3.0), (3.0, 8.0)]
    assert moving_mean(points, 2) == [(2.0, 2.0), (3.0, 5.5)]
    assert moving_mean(points, 4) == []


def test_a_long_run_is_smoothed_over_a_twentieth(whole_run: Path) -> None:
    path = whole_run / "events.jsonl"
    assert "mean of" not in reward_curve(read_run(whole_run))
    metrics = next(line for line in path.read_text().splitlines() if "job.metrics" in line)
    with path.open("a") as file:
        for update in range(1, 61):
            envelope = json.loads(metrics)
            envelope["data"]["update"] = update
            file.write(json.dumps(envelope) + "\n")
    assert "mean of 3 updates" in reward_curve(read_run(whole_run))


def test_stages_are_bordered_on_both_axes(whole_run: Path) -> None:
    by_updates, by_time = clocks(read_run(whole_run))
    assert [(border.x, border.label) for border in by_updates.borders] == [(3.0, "stage 2")]
    assert [border.x for border in by_time.borders] == [16.0]
    assert by_time.label == "wall time, seconds"


def test_an_evaluation_is_placed_where_it_ended(whole_run: Path) -> None:
    _, by_time = clocks(read_run(whole_run))
    assert [by_time.of(update) for update in (0, 1, 2, 4)] == [0.0, 12.0, 15.0, 19.0]


def test_every_judge_is_drawn_over_both_axes(whole_run: Path) -> None:
    drawn = judge_curves(read_run(whole_run))
    titles = ["target over update", "target over wall time", "oracle over update"]
    assert all(f"<b>{title}</b>" in drawn for title in titles)
    assert "held-out, base: from 0.5 to 0.5" in drawn
    # The curve begins at the base model, which an untrained adapter equals.
    assert "held-out, tuned: from 0.5 to 0.25, lowest 0.25, highest 0.75." in drawn
    # Two evaluations, two axes, two judges, each with its interval.
    assert drawn.count(" bar") == 8


def test_shares_gradients_and_statistics_are_drawn_by_name(whole_run: Path) -> None:
    log = read_run(whole_run)
    assert "hps_v2: from 0.75 to 0.75" in share_curve(log)
    assert "branch 2: from 0.05 to 0.05" in gradient_curve(log)
    assert statistic_curves(log) == ""
    path = whole_run / "events.jsonl"
    path.write_text(path.read_text().replace('"statistics": {}', '"statistics": {"kl": 4}'))
    drawn = statistic_curves(read_run(whole_run))
    assert "<b>kl</b>" in drawn
    assert "kl: from 4 to 4" in drawn


@pytest.mark.parametrize(("seconds", "unit"), [(299, "seconds"), (301, "minutes"), (11e3, "hours")])
def test_the_unit_suits_the_run(whole_run: Path, seconds: float, unit: str) -> None:
    path = whole_run / "events.jsonl"
    text = path.read_text().replace('"wall_seconds": 18.0', f'"wall_seconds": {seconds - 2}')
    path.write_text(text)
    _, by_time = clocks(read_run(whole_run))
    assert by_time.label == f"wall time, {unit}"
