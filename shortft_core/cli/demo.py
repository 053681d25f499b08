"""`shortft demo`: tunes the bundled model for a few minutes and shows what changed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from shortft_core.cli.quiet import silence_libraries
from shortft_core.cli.train import LiveProgress, show_results, stop_on_interrupt
from shortft_core.spec.read import read_spec

SPEC = Path(__file__).parents[1] / "bundled" / "demo.yaml"


def demo() -> None:
    """Tunes the bundled model with ShortFT; writes a before/after picture and a report."""
    from shortft_core.artifacts import LocalStore
    from shortft_core.contact_sheet import contact_sheet, last_pair
    from shortft_core.events import read_jsonl
    from shortft_core.run import RunFolder, run_job

    silence_libraries()
    console = Console()
    folder = RunFolder(Path("runs/demo"))
    folder.clear()
    console.print(f"job: {SPEC}", soft_wrap=True, highlight=False)
    with LiveProgress(console) as progress, stop_on_interrupt() as stopped:
        run_job(read_spec(SPEC), folder, emit=progress.show, should_stop=lambda: bool(stopped))
    show_results(console, folder)
    newest = last_pair(list(read_jsonl(folder.events)))
    if newest is None:
        console.print("stopped before the first evaluation: there is no picture")
        return
    path = folder.path / "before_after.png"
    contact_sheet(*newest, LocalStore(folder.path)).save(path)
    console.print(f"picture: {path}", soft_wrap=True, highlight=False)
