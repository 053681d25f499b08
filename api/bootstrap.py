"""What a new installation needs before its services start: secrets, tables and a first API key.

Both commands may run at every start: what is there stays.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console
from sqlalchemy.orm import Session

from migrations.run import upgrade
from shortft_core.artifacts import atomic_file
from shortft_core.errors import ShortFTError, UserError
from store import api_keys
from store.api_keys import NewApiKey, Scope
from store.engine import Database, open_database
from store.settings import store_settings

app = typer.Typer(
    help="Prepares a new installation; may run at every start.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
_SECRET_BYTES: Final = 32
_FIRST_KEY: Final = NewApiKey(name="first administrator", scopes=frozenset({Scope.ADMIN}))


@app.command("secrets")
def make_secrets(
    folder: Annotated[Path, typer.Option(help="Where the secrets are, or will be.")],
    database_url: Annotated[
        str, typer.Option(help="Address of the database, without password.")
    ] = "postgresql+psycopg://shortft@postgres:5432/shortft",
    redis_url: Annotated[
        str, typer.Option(help="Address of Redis, without password.")
    ] = "redis://redis:6379/0",
) -> None:
    """Makes the secrets that are absent, one folder for each that may read them."""
    create_secrets(folder, database_url, redis_url)


@app.command("migrate")
def migrate_and_issue(
    key_file: Annotated[
        Path | None, typer.Option(help="Where the first API key is also written.")
    ] = None,
) -> None:
    """Brings the tables up to date; without any API key, makes one and prints it once."""
    settings = store_settings()
    secret = settings.secret()
    database = open_database(settings.database_address())
    try:
        upgrade(database.engine)
        key = issue_first_key(database, secret, key_file)
    finally:
        database.close()
    typer.echo("The tables are up to date.")
    if key is not None:
        typer.echo(f"First API key, shown only here: {key}")


def create_secrets(folder: Path, database_url: str, redis_url: str) -> None:
    """Writes what is absent; addresses follow the passwords. Raises UserError for no address."""
    database_password = _keep_or_make(folder / "postgres" / "password")
    redis_password = _keep_or_make(folder / "redis" / "password")
    _keep_or_make(folder / "api" / "secret_key")
    _write(folder / "redis" / "auth.conf", f"requirepass {redis_password}")
    database = _with_password(database_url, database_password, "--database-url")
    _write(folder / "shared" / "database_url", database)
    _write(
        folder / "shared" / "redis_url", _with_password(redis_url, redis_password, "--redis-url")
    )


def issue_first_key(database: Database, secret: bytes, file: Path | None) -> str | None:
    """A key for everything if there has never been one, else None.

    The file is written before the row is committed: a crash leaves a key that opens nothing, and
    the next start writes another, but never a key that nobody has seen.
    """

    def issue(session: Session) -> str | None:
        key = api_keys.issue_first(session, secret, _FIRST_KEY)
        if key is not None and file is not None:
            _write(file, key)
        return key

    return database.transact(issue)


def _keep_or_make(path: Path) -> str:
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    made = secrets.token_hex(_SECRET_BYTES)
    _write(path, made)
    return made


def _with_password(url: str, password: str, option: str) -> str:
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname or parts.password is not None:
        remedy = "Give scheme://user@host:port/name, without a password"
        raise UserError(option, "it is not an address to put a password into", remedy)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:{password}@{host}").geturl()


def _write(path: Path, content: str) -> None:
    """Replaces the file in one step; only its owner may read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with atomic_file(path) as file:
        Path(file.name).chmod(0o600)
        file.write(f"{content}\n".encode())


def main() -> None:
    """Entry point: a mistake of the person who installs is one line and exit code 2."""
    try:
        app(prog_name="python -m api.bootstrap")
    except ShortFTError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
