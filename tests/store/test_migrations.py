from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from migrations.run import downgrade, newest, upgrade
from migrations.version import HEAD, current
from store.engine import Database
from store.models import Base, Generation

_POSTGRESQL_SCHEMA = """
SELECT pg_get_constraintdef(oid) || ' ' || conname FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable,
                 character_maximum_length, column_default, collation_name)
FROM information_schema.columns WHERE table_schema = 'public'
"""
_SQLITE_SCHEMA = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"


def _schema(engine: Engine) -> set[str]:
    """Everything the database knows of its own tables: CHECKs and partial indexes too."""
    statement = _SQLITE_SCHEMA if engine.dialect.name == "sqlite" else _POSTGRESQL_SCHEMA
    with engine.connect() as connection:
        rows = connection.execute(text(statement)).scalars().all()
    found = (" ".join(row.split()) for row in rows if "alembic_version" not in row)
    return set().union(*map(_parts, found))


def _parts(row: str) -> set[str]:
    """The lines of SQLite's CREATE TABLE, each with its table's name: their order says nothing."""
    if not row.startswith("CREATE TABLE"):
        return {row}
    table, _, lines = row.partition("(")
    return {table + line.strip(" )") for line in lines.split(", ")}


def test_the_first_upgrade_makes_what_the_models_say(empty_database: Database) -> None:
    engine = empty_database.engine
    upgrade(engine)
    migrated = _schema(engine)
    downgrade(engine)
    Base.metadata.create_all(engine)
    assert migrated == _schema(engine)


def test_a_downgrade_leaves_nothing(empty_database: Database) -> None:
    upgrade(empty_database.engine)
    downgrade(empty_database.engine)
    assert inspect(empty_database.engine).get_table_names() == ["alembic_version"]
    assert current(empty_database.engine) is None


def test_two_processes_that_start_together_migrate_in_turn(empty_database: Database) -> None:
    engine = empty_database.engine
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade, engine) for _ in range(4)]:
            done.result(timeout=30)
    assert current(engine) == HEAD


def _is_comparable(_: object, name: str | None, kind: str, *__: object) -> bool:
    # Reflection of SQLite does not tell that a column is DESC; the test above compares these two.
    return not (kind == "index" and str(name).endswith("_queue"))


def test_autogenerate_finds_no_difference(database: Database) -> None:
    options: dict[str, Any] = {"compare_type": True, "compare_server_default": True}
    if database.engine.dialect.name == "sqlite":
        options["include_object"] = _is_comparable
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_a_second_upgrade_changes_nothing(database: Database) -> None:
    before = _schema(database.engine)
    upgrade(database.engine)
    assert _schema(database.engine) == before
    assert current(database.engine) == HEAD


def test_rows_of_the_first_version_live_on(empty_database: Database) -> None:
    engine = empty_database.engine
    upgrade(engine, "0001")
    insert = text(
        "INSERT INTO generations (id, project, kind, request, batch_key, status, run_after,"
        " created_at, updated_at) VALUES ('gen_a', 'mine', 'generate', '{}', 'k', 'queued',"
        " '2026-01-01', '2026-01-01', '2026-01-01')"
    )
    with engine.begin() as connection:
        connection.execute(insert)
    upgrade(engine)
    with empty_database.read() as session:
        row = session.get_one(Generation, "gen_a")
        assert (row.caller, row.turn, row.outcome) == ("mine", 0, None)
    downgrade(engine, "0001")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT project FROM generations")).scalar_one() == "mine"
    upgrade(engine)
    assert current(engine) == HEAD


def test_the_program_names_the_newest_script() -> None:
    assert newest() == HEAD
