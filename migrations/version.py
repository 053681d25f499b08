"""Which tables this program needs and which a database has, told without loading Alembic."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Engine, inspect, text

from shortft_core.errors import UserError

HEAD: Final = "0004"
"""The newest revision; a test holds it against the scripts."""


def current(engine: Engine) -> str | None:
    """The revision of the database; None before the first migration."""
    if not inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def check(engine: Engine) -> None:
    """Raises UserError unless the database has this version's tables."""
    found = current(engine)
    if found != HEAD:
        problem = f"its tables are of version {found or 'none'}, this program needs {HEAD}"
        raise UserError("database", problem, "Run `shortft migrate`")
