"""`shortft train`: one job on this machine, resumable, with live progress."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from shortft_core.cli.progress import LiveProgress
from shortft_core.cli.quiet import silence_libraries
from shortft_core.errors import DivergedError
from shortft_core.spec.read import read_spec

if TYPE_CHECKING:
    from shortft_core.run import RunFolder


def train(
    spec: Annotated[Path, typer.Argument(help="Job specification, YAML or JSON.")],
    run_folder: Annotated[
        Path | None, typer.Option(help="Default: runs/<name of the specification file>.")
    ] = None,
) -> None:
    """Tunes a base model towards rewards; run it again to resume after a stop."""
    from shortft_core.parallel import is_main_process
    from shortft_core.run import RunFolder, run_job

    silence_libraries()
    console = Console()
    folder = RunFolder(run_folder or Path("runs") / spec.stem)
    job = read_spec(spec)
    try:
        with LiveProgress(console) as progress, stop_on_interrupt() as stopped:
            run_job(job, folder, emit=progress.show, should_stop=lambda: bool(stopped))
    except DivergedError:
        show_results(console, folder)
        raise
    if is_main_process():
        show_results(console, folder)


def report(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")],
) -> None:
    """Writes the report of a run again, one HTML file without links to anywhere."""
    from shortft_core.report import write_report

    Console().print(str(write_report(run_folder)), soft_wrap=True, highlight=False, markup=False)


def show_results(console: Console, folder: RunFolder) -> None:
    """Writes the report, and prints where everything is."""
    from shortft_core.report import write_report

    made = {"adapter": folder.adapter, "best": folder.best}
    found = {name: path for name, path in made.items() if path.exists()}
    for name, path in {**found, "report": write_report(folder.path)}.items():
        console.print(f"{name}: {path}", soft_wrap=True, highlight=False, markup=False)


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
