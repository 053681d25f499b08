"""Migrations from code: no configuration file, no command of its own, no second address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

_FOLDER: Final = Path(__file__).parent
_LOCK: Final = int.from_bytes(b"shortft")
"""Number of PostgreSQL's advisory lock: two processes that start together migrate in turn."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Brings the schema to `revision` in one transaction; nothing happens where it is there."""
    with _migrating(engine) as config:
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str = "base") -> None:
    """Takes changes back in one transaction; the tables that go lose their rows."""
    with _migrating(engine) as config:
        command.downgrade(config, revision)


def revise(engine: Engine, message: str, revision: str) -> None:
    """Writes a new migration from what the models say and `engine`, at the head, lacks.

    For PostgreSQL only: SQLite's reflection does not see which columns of an index are descending.
    """
    with _migrating(engine) as config:
        command.revision(config, message, autogenerate=True, rev_id=revision)


def newest() -> str:
    """The newest revision of the scripts."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


@contextmanager
def _migrating(engine: Engine) -> Iterator[Config]:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            _wait_for_others(connection)
        config = _config()
        config.attributes["connection"] = connection
        yield config


def _wait_for_others(connection: Connection) -> None:
    # A migration may take longer than any statement of the service may.
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("version_locations", str(_FOLDER / "versions").replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    return config
