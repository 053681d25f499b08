"""`shortft backup`: the rows of the folder that is named, and none of an empty one."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from api import serve
from migrations import version
from migrations.run import upgrade
from shortft_core.errors import UserError
from store.engine import open_database


def _backup(folder: Path, path: Path) -> str:
    app = typer.Typer()
    serve.add(app)
    words = ["backup", str(path), "--data-dir", str(folder)]
    return CliRunner().invoke(app, words, catch_exceptions=False).output


def test_the_rows_of_the_named_folder_are_copied(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/service/shortft.db")
    upgrade(database.engine)
    database.close()
    assert "copy the objects next" in _backup(tmp_path / "service", tmp_path / "copy.db")
    copy = open_database(f"sqlite:///{tmp_path}/copy.db")
    assert version.current(copy.engine) == version.HEAD
    copy.close()


def test_a_folder_without_a_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its tables are of version none"):
        _backup(tmp_path / "elsewhere", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
