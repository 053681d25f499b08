"""What a person sees of a run: on a terminal, and in a log file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from rich.console import Console
from typer.testing import CliRunner

from shortft_core.cli import train
from shortft_core.cli.progress import LINES, LiveProgress
from shortft_core.errors import DivergedError, UserError
from shortft_core.events import (
    AlertRaised,
    Diversity,
    EvaluationDone,
    Event,
    LogLine,
    PhaseStarted,
    RunFinished,
    RunStarted,
    Score,
    StepMetrics,
)


def step(update: int, **changes: Any) -> StepMetrics:
    fields: dict[str, Any] = {
        "update": update,
        "loss": 0.0,
        "reward": 0.25,
        "terms": {},
        "grad_norms": {},
        "learning_rate": 1e-3,
        "seconds": 0.5,
        "evaluations_with_gradient": 1,
        "evaluations_without_gradient": 1,
        "images_seen": update,
    }
    return StepMetrics(**fields | changes)


def shown(events: Sequence[Event], *, terminal: bool) -> str:
    console = Console(file=StringIO(), width=120, force_terminal=terminal, color_system=None)
    with LiveProgress(console) as progress:
        for event in events:
            progress.show(event)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_log_gets_a_line_now_and_then_and_no_bar() -> None:
    updates = 1000
    start = RunStarted(spec_sha256="a", updates=updates)
    steps = [step(update) for update in range(1, updates + 1)]
    lines = shown([start, *steps], terminal=False).splitlines()
    assert LINES <= len(lines) <= LINES + 1
    assert lines[0].startswith("update 1/1000  reward 0.2500  0.50 s")
    assert lines[-1].startswith("update 1000/1000")
    assert not any("\x1b" in line or "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in line for line in lines)


def test_a_stage_is_named_where_there_are_several() -> None:
    events: list[Event] = [
        PhaseStarted(phase="stage", stage=2),
        step(3, stage=2, stages=4),
        step(4),
    ]
    phase, second, single = shown(events, terminal=False).splitlines()[:3]
    assert phase == "stage 2"
    assert "stage 2/4  reward 0.2500" in second
    assert "stage" not in single


def test_a_terminal_gets_a_bar_with_stage_reward_and_eta() -> None:
    start = RunStarted(spec_sha256="a", updates=4)
    text = shown([start, step(2, stage=1, stages=2)], terminal=True)
    assert "stage 1/2  reward 0.2500" in text
    assert "2/4 updates" in text
    assert "ETA" in text
    assert "update 2/4 " not in text


def test_a_resume_says_where_it_goes_on() -> None:
    text = shown([RunStarted(spec_sha256="a", updates=9, first_update=4)], terminal=False)
    assert text == "resuming after update 3\n"


def test_evaluations_are_tables_and_alerts_one_line() -> None:
    events: list[Event] = [
        EvaluationDone(
            update=7,
            images=2,
            base={"oracle": Score(mean=0.5, std=0.1)},
            tuned={"oracle": Score(mean=0.25, std=0.1)},
            is_best=True,
            diversity=Diversity(base=0.5, tuned=0.375),
        ),
        AlertRaised(
            kind="reward_divergence",
            update=7,
            action="pause",
            value=0.75,
            limit=0.5,
            message="The held-out [judges] fell, and this sentence is longer than the terminal is",
        ),
        LogLine(level="warn", message="prompts: [2] are empty"),
        RunFinished(outcome="stopped", updates=7, best_update=5, seconds=61.2),
    ]
    text = shown(events, terminal=False)
    assert "update 7, 2 held-out images (best)" in text
    assert "-0.2500" in text
    assert "-0.1250" in text
    alert = next(line for line in text.splitlines() if line.startswith("alert"))
    assert alert == (
        "alert update 7, reward_divergence: The held-out [judges] fell, and this sentence is"
        " longer than the terminal is (0.750, limit 0.5); action: pause"
    )
    assert "prompts: [2] are empty" in text
    assert text.endswith("stopped after 7 updates, best at 5, 61 s\n")


def test_a_run_that_breaks_leaves_a_report(tiny_folder: Path, tmp_path: Path) -> None:
    spec = {
        "base_model": {"path": str(tiny_folder)},
        "method": {"type": "draft_k", "steps": 2, "rank": 2, "batch_size": 1, "updates": 9}
        | {"learning_rate": 1e30},
        "rewards": [{"name": "brightness"}],
        "prompts": {"inline": ["a red circle"]},
        "evaluation": {"prompts": {"inline": ["a red star"]}, "held_out": []},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    folder = tmp_path / "run"
    with pytest.raises(DivergedError):
        train.train(tmp_path / "job.yaml", folder)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events[-1]["data"]["outcome"] == "failed"
    assert "failed" in (folder / "report.html").read_text()


def test_a_mistake_leaves_the_folder_of_another_run_alone(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("rewards: []\n")
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError):
        train.train(tmp_path / "job.yaml", tmp_path / "run")
    assert [*(tmp_path / "run").iterdir()] == []


def test_a_report_can_be_written_again(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(train.report)
    (tmp_path / "spec.json").write_text(
        json.dumps(
            {
                "base_model": {"name": "shapes"},
                "method": {"type": "draft_k"},
                "rewards": [{"name": "symmetry"}],
                "prompts": {"inline": ["a"]},
            }
        )
    )
    result = CliRunner().invoke(app, [str(tmp_path)], catch_exceptions=False)
    assert result.output.strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").is_file()
