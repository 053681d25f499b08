"""`shortft train`: one job on this machine, resumable, with live progress."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from shortft_core.cli.quiet import silence_libraries
from shortft_core.events import (
    AlertRaised,
    EvaluationDone,
    Event,
    LogLine,
    PhaseStarted,
    RunFinished,
    RunStarted,
    StepMetrics,
)
from shortft_core.spec.read import read_spec


def train(
    spec: Annotated[Path, typer.Argument(help="Job specification, YAML or JSON.")],
    run_folder: Annotated[
        Path | None, typer.Option(help="Default: runs/<name of the specification file>.")
    ] = None,
) -> None:
    """Tunes a base model towards rewards; run it again to resume after a stop."""
    from shortft_core.run import RunFolder, run_job

    silence_libraries()
    console = Console()
    folder = RunFolder(run_folder or Path("runs") / spec.stem)
    job = read_spec(spec)
    with LiveProgress(console) as progress, stop_on_interrupt() as stopped:
        state = run_job(job, folder, emit=progress.show, should_stop=lambda: bool(stopped))
    if state.update:
        console.print(f"adapter: {folder.adapter}", soft_wrap=True, highlight=False)


class LiveProgress:
    """A progress bar fed by events; evaluations are printed as tables."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total} updates"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.progress.add_task("preparing", total=None)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, event: Event) -> None:
        """Draws one event."""
        if isinstance(event, PhaseStarted):
            self.progress.update(self.task, description=event.phase)
        elif isinstance(event, RunStarted):
            done = event.first_update - 1
            self.progress.update(self.task, total=event.updates, completed=done)
        elif isinstance(event, StepMetrics):
            text = f"reward {event.reward:.4f}"
            self.progress.update(self.task, description=text, completed=event.update)
        elif isinstance(event, EvaluationDone):
            self.console.print(evaluation_table(event))
        elif isinstance(event, LogLine):
            self.console.print(event.message, markup=False)
        elif isinstance(event, AlertRaised):
            self.console.print(f"[yellow]alert[/] {event.kind}: {event.message}")
        elif isinstance(event, RunFinished):
            self.progress.update(self.task, description=event.outcome)


def evaluation_table(event: EvaluationDone) -> Table:
    """Base beside tuned for every judge, raw units."""
    title = f"update {event.update}, {event.images} held-out images" + " (best)" * event.is_best
    table = Table("judge", "base", "tuned", "change", title=title)
    for judge, base in event.base.items():
        tuned = event.tuned[judge]
        change = f"{tuned.mean - base.mean:+.4f}"
        table.add_row(judge, f"{base.mean:.4f}", f"{tuned.mean:.4f}", change)
    return table


@contextmanager
def stop_on_interrupt() -> Iterator[list[int]]:
    """Collects the first SIGINT or SIGTERM, so that a run ends after a whole update.

    The second one ends it at once; the last checkpoint stays.
    """
    received: list[int] = []

    def collect(number: int, _: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, collect) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
