"""Commands that talk to a service; each imports what it needs when it runs."""

from __future__ import annotations

import typer

from shortft_client.commands import demo, jobs


def add(app: typer.Typer) -> None:
    """Puts the commands into the application."""
    app.add_typer(jobs.app, name="jobs")
    app.command("demo")(demo.demo)
