"""Commands of the HTTP interface: the server, and the keys that open it.

The application is imported where it is served: commands about keys start in half of its time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from api.key_watch import keys_exist
from api.loopback import is_loopback
from api.settings import ApiSettings, api_settings
from migrations import version
from shortft_core.errors import UserError
from store import api_keys
from store.api_keys import NewApiKey, Scope
from store.engine import Database, open_database
from store.jobs import DEFAULT_PROJECT
from store.server_secret import secret_file
from store.settings import StoreSettings, store_settings

keys_app: Final = typer.Typer(
    name="keys", help="Make, list and revoke API keys.", no_args_is_help=True
)
_console: Final = Console()
DataDir = Annotated[Path | None, typer.Option(help="Folder of the service, as `serve` names it.")]


def serve(settings: ApiSettings, store: StoreSettings) -> None:
    """Answers HTTP until SIGTERM; raises UserError where it must not listen."""
    from api.app import create_app
    from api.logs import configuration
    from api.server import Server

    _refuse_open_door(settings, store)
    app = create_app(settings, store)
    Server(app, settings, configuration(settings.log_format)).run()


def _refuse_open_door(settings: ApiSettings, store: StoreSettings) -> None:
    """Also the place where a database without tables is told from a fault."""
    database = _database(store)
    has_keys = keys_exist(database)
    database.close()
    if not has_keys and not is_loopback(settings.host):
        problem = f"{settings.host} can be reached by others, and there is no API key"
        raise UserError(
            "SHORTFT_HOST", problem, "Make one with `shortft keys create`, or use 127.0.0.1"
        )


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scopes: Annotated[
        str, typer.Option(help=f"Comma-separated: {', '.join(Scope)}.")
    ] = Scope.ADMIN.value,
    project: Annotated[str, typer.Option(help="Whose jobs it opens.")] = DEFAULT_PROJECT,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make an API key and print it: it is shown this once."""
    store = _store(data_dir)
    new = NewApiKey(
        name=name,
        scopes=parse_scopes(scopes),
        project=project,
        expires_at=None if days is None else datetime.now(tz=UTC) + timedelta(days=days),
    )
    database = _database(store)
    secret = _secret(store)
    _, key = database.transact(lambda session: api_keys.issue(session, secret, new))
    database.close()
    typer.echo(key)


@keys_app.command("list")
def list_keys(
    project: Annotated[str, typer.Option(help="Whose keys.")] = DEFAULT_PROJECT,
    data_dir: DataDir = None,
) -> None:
    """List API keys, the newest first; the keys themselves are nowhere."""
    database = _database(_store(data_dir))
    with database.read() as session:
        rows = api_keys.keys(session, project)
    database.close()
    table = Table(
        Column("id", no_wrap=True, min_width=30),
        "name",
        "ends with",
        "scopes",
        "last used",
        "state",
    )
    for row in rows:
        used = row.last_used_at.isoformat(timespec="minutes") if row.last_used_at else "never"
        state = "revoked" if row.revoked_at else "valid"
        table.add_row(row.id, row.name, row.last_characters, " ".join(row.scopes), used, state)
    _console.print(table)


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key, `key_…`.")],
    project: Annotated[str, typer.Option(help="Whose key.")] = DEFAULT_PROJECT,
    data_dir: DataDir = None,
) -> None:
    """End an API key for good."""
    database = _database(_store(data_dir))
    database.transact(lambda session: api_keys.revoke(session, key_id, project))
    database.close()
    typer.echo(f"{key_id} is revoked")


def write_openapi(
    path: Annotated[Path | None, typer.Argument(help="Where to, if not to its place.")] = None,
) -> None:
    """Write the OpenAPI document of this version."""
    from api.app import create_app
    from api.openapi import COMMITTED, as_text

    app = create_app(ApiSettings(), StoreSettings())
    (path or COMMITTED).write_text(as_text(app), encoding="utf-8")


def parse_scopes(text: str) -> frozenset[Scope]:
    """The scopes of a comma-separated list; raises UserError for an unknown one."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in set(Scope)]
    if unknown:
        raise UserError("scopes", f"unknown scope {unknown[0]!r}", f"Use {', '.join(Scope)}")
    return frozenset(map(Scope, names))


def _store(data_dir: Path | None) -> StoreSettings:
    store = store_settings()
    return store if data_dir is None else store.model_copy(update={"data_dir": data_dir})


def _secret(store: StoreSettings) -> bytes:
    """The secret of the service whose rows these are.

    One that `serve` runs in a folder of its own has made it there; a database that was given by
    address belongs to a service whose secret has to be given too.
    """
    given = (
        store.secret_key,
        store.secret_key_file,
        store.database_url,
        store.database_url_file,
    )
    if any(value is not None for value in given):
        return store.secret()
    made = secret_file(store.data_dir.absolute())
    return store.model_copy(update={"secret_key_file": made}).secret()


def _database(store: StoreSettings) -> Database:
    database = open_database(store.database_address())
    version.check(database.reader)
    return database


def main(context: typer.Context) -> None:
    """Answer HTTP; settings come from the environment."""
    if context.invoked_subcommand is None:
        serve(api_settings(), store_settings())
