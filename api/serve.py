"""`shortft serve`: the whole service on this machine, and the other commands that need a server.

This module is imported for `shortft --help`, so what it needs is imported by its commands.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

_PASSED_ON = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": [],
}


def serve(
    host: Annotated[str | None, typer.Option(help="Default: 127.0.0.1, this machine.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Default: 8000; 0 is any free one.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of everything it keeps.")] = None,
    *,
    until_input_ends: Annotated[
        bool, typer.Option("--until-input-ends", help="Stop when standard input ends.")
    ] = False,
) -> None:
    """Runs the service: HTTP, training, generation and chores, each a process of its own."""
    from api.embedded.house import open_house
    from api.settings import api_settings
    from store.settings import store_settings

    api, store = api_settings(), store_settings()
    if data_dir is not None:
        store = store.model_copy(update={"data_dir": data_dir})
    wanted = (host or api.host, api.port if port is None else port)
    with _stop_signals() as stopped:
        if until_input_ends:
            threading.Thread(target=_await_end, args=(stopped,), daemon=True).start()
        with open_house(store, *wanted) as house:
            _say(f"folder: {store.data_dir.absolute()}")
            house.live(stopped.is_set, _say)


def migrate() -> None:
    """Brings the tables of the database up to date."""
    from migrations.run import upgrade
    from migrations.version import HEAD
    from store.engine import open_database
    from store.settings import store_settings

    database = open_database(store_settings().database_address())
    upgrade(database.engine)
    database.close()
    _say(f"the tables are of version {HEAD}")


def backup(
    path: Annotated[Path, typer.Argument(help="File to write; it must not exist yet.")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the service, as `serve` names it.")
    ] = None,
) -> None:
    """Copies the rows of a SQLite database in use, as they are at one moment."""
    from migrations.version import check
    from store.backup import backup as copy
    from store.engine import open_database
    from store.settings import store_settings

    store = store_settings()
    if data_dir is not None:
        store = store.model_copy(update={"data_dir": data_dir})
    database = open_database(store.database_address())
    # An empty file would be copied like any other.
    check(database.reader)
    copy(database, path)
    database.close()
    _say(f"the rows are in {path}; copy the objects next")


def keys(context: typer.Context) -> None:
    """Makes, lists and revokes API keys: `create`, `list`, `revoke`."""
    command = [sys.executable, "-m", "api", "keys", *context.args]
    os.execv(sys.executable, command)  # noqa: S606  # our own module, in this process's place


def add(app: typer.Typer) -> None:
    """Puts these commands into the application."""
    app.command("serve")(serve)
    app.command("migrate")(migrate)
    app.command("backup")(backup)
    app.command("keys", context_settings=_PASSED_ON)(keys)


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def _await_end(stopped: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    stopped.set()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    stopped = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        stopped.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[signal.Signals, Callable[..., object] | int | None] = {
        number: signal.signal(number, stop) for number in numbers
    }
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
