"""What a finished cell leaves behind: one JSON object, small enough to be committed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Literal

from benchmarks.results import write_text
from shortft_core.spec import Spec


class Point(Spec):
    """One evaluation during the training."""

    update: int
    seconds: float
    """Calibrated training seconds, evaluations excluded."""
    base: Mapping[str, float]
    """Judge -> mean of the untuned model on the same prompts and seeds."""
    tuned: Mapping[str, float]


class Record(Spec):
    """What one cell found."""

    setting: str
    variant: str
    seed: int
    learning_rate: float | None = None
    updates: int = 0
    budget_seconds: float | None = None
    spec_sha256: str | None = None
    """Hash of the resolved job."""
    model_sha256: str = ""
    outcome: Literal["completed", "diverged"] = "completed"
    curve: tuple[Point, ...] = ()
    alerts: tuple[str, ...] = ()
    """Kinds of alarms, each with its update."""
    scores: Mapping[str, tuple[float, ...]] = {}
    """Judge -> raw score of every image of the final evaluation; empty if the run diverged."""
    diversity: float | None = None
    """Mean over prompts of the RMS pixel difference between images of one prompt."""
    machine: Mapping[str, object] = {}

    def mean(self, judge: str) -> float:
        """Mean score of one judge in the final evaluation."""
        return fmean(self.scores[judge])


def write(path: Path, record: Record) -> None:
    """Stores the record at once or not at all: its file is the proof that the cell is finished."""
    write_text(path, record.model_dump_json(indent=1) + "\n")


def read(path: Path) -> Record | None:
    """The record of a finished cell."""
    if not path.is_file():
        return None
    return Record.model_validate_json(path.read_text(encoding="utf-8"))
