"""Shows events while they come, wherever they come from: a run of this process, or a service."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from shortft_core.events import (
    AlertRaised,
    DistilMetrics,
    EvaluationDone,
    Event,
    LogLine,
    PhaseStarted,
    RunFinished,
    RunStarted,
    StepMetrics,
)

LINES: Final = 20
"""Lines about updates that a whole run writes where there is no terminal to draw a bar on."""
_STYLES: Final = {"info": "", "warn": "yellow", "error": "red"}


class EventClock:
    """The time at which events happened, going on since the newest one.

    A reader that catches up with a run sees hours in a second; its ETA has to count the hours.
    """

    def __init__(self) -> None:
        self._event_at = 0.0
        self._seen_at = time.monotonic()

    def note(self, happened_at: datetime) -> None:
        """Sets the clock to an event, unless it would go backwards."""
        self._event_at = max(happened_at.timestamp(), self())
        self._seen_at = time.monotonic()

    def __call__(self) -> float:
        """Seconds, of which only differences mean something."""
        return self._event_at + (time.monotonic() - self._seen_at)


class LiveProgress:
    """A progress bar fed by events, or a line now and then where there is no terminal."""

    def __init__(self, console: Console, clock: Callable[[], float] | None = None) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total} updates"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=300,
            get_time=clock,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("preparing", total=None)
        self._updates: int | None = None
        self._draw: Mapping[type[Any], Callable[[Any], None]] = {
            PhaseStarted: self._phase,
            RunStarted: self._started,
            StepMetrics: self._step,
            DistilMetrics: self._distil_step,
            EvaluationDone: lambda event: self.console.print(evaluation_table(event)),
            LogLine: self._line,
            AlertRaised: self._alert,
            RunFinished: self._finished,
        }

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, event: Event) -> None:
        """Draws one event; checkpoints and pictures have nothing to show here."""
        draw = self._draw.get(type(event))
        if draw is not None:
            draw(event)

    def _phase(self, event: PhaseStarted) -> None:
        text = event.phase if event.stage is None else f"{event.phase} {event.stage}"
        self.progress.update(self.task, description=text)
        self._plain(text)

    def _started(self, event: RunStarted) -> None:
        self._updates = event.updates
        done = event.first_update - 1
        # Updates of an earlier start took none of this one's time: they must not speed up its ETA.
        self.progress.reset(self.task, total=event.updates, completed=done)
        if done:
            self.console.print(f"resuming after update {done}")

    def _step(self, event: StepMetrics) -> None:
        stage = f"stage {event.stage}/{event.stages}  " if event.stages > 1 else ""
        text = f"{stage}reward {event.reward:.4f}"
        self._updates = event.updates or self._updates
        self.progress.update(
            self.task, description=text, completed=event.update, total=self._updates
        )
        every = math.ceil((self._updates or LINES) / LINES)
        if event.update % every == 0 or event.update in {1, self._updates}:
            of = f"/{self._updates}" if self._updates else ""
            left = self.progress.tasks[self.task].time_remaining
            eta = f"  ETA {timedelta(seconds=round(left))}" if left else ""
            self._plain(f"update {event.update}{of}  {text}  {event.seconds:.2f} s{eta}")

    def _distil_step(self, event: DistilMetrics) -> None:
        errors = ", ".join(f"{jump} {error:.3f}" for jump, error in event.errors.items())
        text = f"error to naive: {errors}"
        self.progress.update(
            self.task, description=text, completed=event.update, total=event.updates
        )
        self._plain(f"update {event.update}/{event.updates}  {text}")

    def _line(self, event: LogLine) -> None:
        self.console.print(event.message, markup=False, style=_STYLES[event.level], soft_wrap=True)

    def _alert(self, event: AlertRaised) -> None:
        found = "" if event.value is None else f" ({event.value:.3f}"
        found += "" if event.limit is None else f", limit {event.limit:g}"
        found += ")" if found else ""
        about = escape(event.message or event.judge or "")
        self.console.print(
            f"[yellow]alert[/] update {event.update}, {event.kind}: {about}{found};"
            f" action: {event.action}",
            soft_wrap=True,
        )

    def _finished(self, event: RunFinished) -> None:
        best = "" if event.best_update is None else f", best at {event.best_update}"
        text = f"{event.outcome} after {event.updates} updates{best}, {event.seconds:.0f} s"
        self.progress.update(self.task, description=event.outcome)
        self.console.print(text, highlight=False)

    def _plain(self, text: str) -> None:
        """For logs only: on a terminal the bar says it."""
        if not self.console.is_terminal:
            self.console.print(text, highlight=False, markup=False)


def evaluation_table(event: EvaluationDone) -> Table:
    """Base beside tuned for every judge, raw units."""
    title = f"update {event.update}, {event.images} held-out images" + " (best)" * event.is_best
    table = Table("judge", "base", "tuned", "change", title=title)
    for judge, base in event.base.items():
        tuned = event.tuned[judge]
        change = f"{tuned.mean - base.mean:+.4f}"
        table.add_row(judge, f"{base.mean:.4f}", f"{tuned.mean:.4f}", change)
    if (found := event.diversity) is not None:
        change = f"{found.tuned - found.base:+.4f}"
        table.add_row("diversity", f"{found.base:.4f}", f"{found.tuned:.4f}", change)
    return table
