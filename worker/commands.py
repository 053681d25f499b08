"""`shortft worker`; imported for `shortft --help`, so it imports nothing of the worker itself."""

from __future__ import annotations

import os
import sys
from typing import Final

import typer

_PASSED_ON: Final = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": [],
}


def worker(context: typer.Context) -> None:
    """Runs one worker of this machine: `train`, `generate` or `default`."""
    command = [sys.executable, "-m", "worker", *context.args]
    os.execv(sys.executable, command)  # noqa: S606  # our own module, in this process's place


def add(app: typer.Typer) -> None:
    """Puts the command into the application."""
    app.command("worker", context_settings=_PASSED_ON)(worker)
