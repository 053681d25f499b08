"""`python -m worker.health KIND`: whether a worker of this host says that it lives.

It asks the database, as the rest of the service does: a process that runs but has lost the
database, or no longer beats, is found too.
"""

from __future__ import annotations

import socket
import sys
from typing import Annotated

import typer

from shortft_core.errors import ShortFTError
from store import workers
from store.engine import Database, open_database
from store.models import Worker
from store.settings import store_settings


def living(database: Database, kind: str, host: str) -> tuple[Worker, ...]:
    """Workers of a kind on a host whose last heartbeat is recent, the oldest first."""
    with database.read() as session:
        found = workers.alive(session)
    return tuple(worker for worker in found if (worker.kind, worker.host) == (kind, host))


def check(kind: Annotated[str, typer.Argument(help="train, generate or default.")]) -> None:
    """Exits with 1 if no worker of this kind lives on this host."""
    database = open_database(store_settings().database_address())
    try:
        found = living(database, kind, socket.gethostname())
    finally:
        database.close()
    if not found:
        typer.echo(f"No {kind} worker of {socket.gethostname()} has a recent heartbeat.", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    try:
        typer.run(check)
    except ShortFTError as error:
        sys.exit(str(error))
