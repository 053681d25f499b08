"""A run folder read back: its specification, and its events as one timeline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

from shortft_core.errors import ArtifactError, UserError
from shortft_core.events import (
    AlertRaised,
    EvaluationDone,
    Event,
    LogLine,
    RunFinished,
    RunStarted,
    SamplesReady,
    StepMetrics,
    read_jsonl,
)
from shortft_core.paired import Change, changes

SPEC_FILE: Final = "spec.json"
EVENTS_FILE: Final = "events.jsonl"
CARD_FILE: Final = "shortft.json"

_Updated = TypeVar("_Updated", StepMetrics, EvaluationDone, SamplesReady)


@dataclass(frozen=True)
class RunLog:
    """What a run folder says of its run; where a resume repeated an update, its last word."""

    folder: Path
    spec: Mapping[str, Any]
    """As it was stored, so that a run of an earlier version can still be reported."""
    events: tuple[Event, ...]

    @cached_property
    def steps(self) -> tuple[StepMetrics, ...]:
        """Optimizer updates in order."""
        return _by_update(event for event in self.events if isinstance(event, StepMetrics))

    @cached_property
    def evaluations(self) -> tuple[EvaluationDone, ...]:
        """Evaluations in order of their updates."""
        return _by_update(event for event in self.events if isinstance(event, EvaluationDone))

    @cached_property
    def samples(self) -> Mapping[int, SamplesReady]:
        """Update -> pictures of its evaluation."""
        found = _by_update(event for event in self.events if isinstance(event, SamplesReady))
        return {event.update: event for event in found}

    @property
    def alerts(self) -> tuple[AlertRaised, ...]:
        """What the guard found, in the order it was found."""
        return tuple(event for event in self.events if isinstance(event, AlertRaised))

    @property
    def lines(self) -> tuple[LogLine, ...]:
        """Log lines in order."""
        return tuple(event for event in self.events if isinstance(event, LogLine))

    @property
    def started(self) -> RunStarted | None:
        """The first start; None before the weights are loaded."""
        return next((event for event in self.events if isinstance(event, RunStarted)), None)

    @property
    def finished(self) -> RunFinished | None:
        """How the last start ended; None while it runs, or after a crash."""
        ends = [event for event in self.events if isinstance(event, RunStarted | RunFinished)]
        return ends[-1] if ends and isinstance(ends[-1], RunFinished) else None

    @cached_property
    def best(self) -> EvaluationDone | None:
        """The newest evaluation that no earlier one is preferred to."""
        return next((event for event in reversed(self.evaluations) if event.is_best), None)

    @cached_property
    def stage_borders(self) -> tuple[int, ...]:
        """Updates that a new stage begins with."""
        stages = [(step.update, step.stage) for step in self.steps]
        return tuple(update for (_, before), (update, stage) in pairwise(stages) if stage != before)

    @cached_property
    def wall_seconds(self) -> Mapping[datetime, float]:
        """Time of an event -> seconds the run had worked by then, without breaks between starts."""
        worked: dict[datetime, float] = {}
        base, anchor = 0.0, None
        for event in self.events:
            if anchor is None or isinstance(event, RunStarted):
                base, anchor = (max(worked.values()) if worked else 0.0), event.created_at
            worked[event.created_at] = base + (event.created_at - anchor).total_seconds()
            if isinstance(event, StepMetrics) and event.wall_seconds > 0:
                base, anchor = event.wall_seconds, event.created_at
                worked[anchor] = base
        return worked

    def changes(self, update: int) -> dict[str, Change]:
        """Judge -> paired change of an evaluation's pictures; empty where none were stored."""
        samples = self.samples.get(update)
        if samples is None or not samples.pairs:
            return {}
        return changes(
            [pair.prompt for pair in samples.pairs],
            [pair.base.scores for pair in samples.pairs],
            [pair.tuned.scores for pair in samples.pairs],
        )

    def cards(self) -> dict[str, Mapping[str, Any]]:
        """Adapter folder -> its card, for those that were written."""
        paths = {name: self.folder / name / CARD_FILE for name in ("best", "adapter")}
        return {name: _read_json(path) for name, path in paths.items() if path.is_file()}


def read_run(folder: Path) -> RunLog:
    """Reads specification and events.

    Raises UserError for a folder that holds no run, ArtifactError for files that are not JSON.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        raise UserError("run folder", f"{folder} holds no {SPEC_FILE}", "Name the folder of a run")
    events = folder / EVENTS_FILE
    found = tuple(read_jsonl(events)) if events.is_file() else ()
    return RunLog(folder=folder, spec=_read_json(path), events=found)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error})") from error
    return content


def _by_update(events: Iterable[_Updated]) -> tuple[_Updated, ...]:
    last = {event.update: event for event in events}
    return tuple(last[update] for update in sorted(last))
