from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shortft_core.errors import UserError
from store import jobs
from store.backup import backup
from store.engine import open_database
from store.jobs import JobFilter
from store.pages import PageRequest

if TYPE_CHECKING:
    from tests.store.conftest import Bench


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_copy_is_whole_while_others_write(bench: Bench, tmp_path: Path) -> None:
    first = bench.create()
    path = tmp_path / "backups" / "copy.db"
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            bench.create()

    writer = threading.Thread(target=write)
    writer.start()
    # A connection that read before cannot write until it is told otherwise.
    bench.get(first.id)
    backup(bench.database, path)
    done.set()
    writer.join()
    copy = open_database(f"sqlite:///{path}")
    with copy.read() as session:
        found = jobs.page(session, JobFilter(), PageRequest(order="asc"))
        assert found.rows[0].id == first.id
    copy.close()
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    with pytest.raises(UserError, match=r"copy.db exists. Name a new file"):
        backup(bench.database, path)
    assert bench.create().id


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_postgresql_has_its_own_tools(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Use pg_dump"):
        backup(bench.database, tmp_path / "copy.db")
