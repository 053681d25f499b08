"""Commands of other rooms join the application without slowing it down or breaking it."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points

import pytest
import typer

from shortft_core.cli import app, rooms
from shortft_core.cli.progress import EventClock
from shortft_core.errors import UserError

# What a machine lacks that has none of the extras; a None in sys.modules makes an import fail.
WITHOUT_EXTRAS = """
import sys
arguments, sys.argv[1:] = sys.argv[1:], []
for name in ("alembic", "celery", "fastapi", "kombu", "sqlalchemy", "torch", "PIL", "uvicorn"):
    sys.modules[name] = None
sys.argv = ["shortft", *arguments]
from shortft_core.cli import main
main()
"""


def _without_extras(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_help_lists_every_room_where_nothing_else_is_installed() -> None:
    done = _without_extras("--help")
    assert done.returncode == 0, done.stderr
    for name in ("train", "jobs", "demo", "serve", "migrate", "keys", "worker"):
        assert f"│ {name} " in done.stdout


def test_a_command_without_its_packages_says_how_to_get_them() -> None:
    done = _without_extras("serve")
    assert done.returncode == 2
    assert "pip install 'shortft[server]'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "extra"), [("torch.nn", "train"), ("fastapi", "server"), ("store.jobs", None)]
)
def test_extras_by_their_modules(name: str, extra: str | None) -> None:
    found = rooms.missing_extra(ModuleNotFoundError(name, name=name))
    assert found == (extra and f"install it with: pip install 'shortft[{extra}]'")


def test_every_entry_point_puts_commands_into_an_application() -> None:
    found = entry_points(group=rooms.COMMANDS)
    assert {entry.name for entry in found} >= {"api", "client", "worker"}
    for entry in found:
        empty = typer.Typer()
        entry.load()(empty)
        assert empty.registered_commands or empty.registered_groups


def test_commands_are_there_once() -> None:
    names = [command.name for command in app.registered_commands]
    assert len(set(names)) == len(names)


def test_what_works_at_a_service_is_found_by_its_name() -> None:
    assert callable(rooms.remote("generate"))
    with pytest.raises(UserError, match="no installed package can paint there"):
        rooms.remote("paint")


def test_the_clock_of_events_runs_through_history_and_never_back() -> None:
    clock = EventClock()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    clock.note(start)
    assert start.timestamp() <= clock() < start.timestamp() + 60
    clock.note(start + timedelta(hours=1))
    an_hour_later = clock()
    assert start.timestamp() + 3600 <= an_hour_later < start.timestamp() + 3660
    clock.note(start)
    assert clock() >= an_hour_later
