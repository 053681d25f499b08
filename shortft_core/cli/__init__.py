"""The `shortft` command; torch is imported inside a command, so `shortft --help` is instant."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console
from rich.logging import RichHandler

from shortft_core.cli import catalogs, distil, evaluate, images, train
from shortft_core.cli.rooms import add_commands, missing_extra
from shortft_core.errors import ShortFTError

app = typer.Typer(
    name="shortft",
    help="Tunes text-to-image models towards rewards, through shortened denoising chains.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command("train")(train.train)
app.command("report")(train.report)
app.command("distil")(distil.distil)
app.command("generate")(images.generate)
app.command("evaluate")(evaluate.evaluate)
app.command("score")(images.score)
app.add_typer(catalogs.models, name="models")
app.add_typer(catalogs.rewards, name="rewards")
app.add_typer(catalogs.methods, name="methods")
app.add_typer(catalogs.shortcuts, name="shortcuts")
app.add_typer(catalogs.prompts, name="prompts")
add_commands(app)


def main() -> None:
    """Entry point: a user's mistake is one red line and exit code 2, not a traceback."""
    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False)],
    )
    try:
        app()
    except ShortFTError as error:
        console.print(f"[bold red]error[/] {type(error).__name__}: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(2)
    except ModuleNotFoundError as error:
        needed = missing_extra(error)
        if needed is None:
            raise
        console.print("[bold red]error[/] ", end="")
        console.print(f"{error}; {needed}", markup=False, highlight=False)
        sys.exit(2)
