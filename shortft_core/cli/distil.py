"""`shortft distil`: one distillation on this machine, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shortft_core.cli.progress import LiveProgress
from shortft_core.cli.quiet import silence_libraries
from shortft_core.cli.train import stop_on_interrupt
from shortft_core.shortcut_card import CARD_FILE, read_card
from shortft_core.spec.read import read_distil


def distil(
    spec: Annotated[Path, typer.Argument(help="Specification of kind distil, YAML or JSON.")],
    run_folder: Annotated[
        Path | None, typer.Option(help="Default: runs/<name of the specification file>.")
    ] = None,
) -> None:
    """Distils the jumps that shorten a base model's chain; run it again to resume after a stop."""
    from shortft_core.distil.run import run_distil

    silence_libraries()
    console = Console()
    folder = run_folder or Path("runs") / spec.stem
    job = read_distil(spec)
    with LiveProgress(console) as progress, stop_on_interrupt() as stopped:
        done = run_distil(job, folder, emit=progress.show, should_stop=lambda: bool(stopped))
    if done is None:
        console.print("stopped: run the same command again to go on")
        return
    report = read_card(done / CARD_FILE).report
    console.print(f"error to guided naive jumps: {report.rms_ratio:.3f}")
    console.print(f"shortcut: {done}", soft_wrap=True, highlight=False)
