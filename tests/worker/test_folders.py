"""Folders of workers, dead and alive."""

from __future__ import annotations

from pathlib import Path

from worker.folders import WorkerFolder
from worker.locks import try_lock, unlock


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_folders_of_dead_workers_go(tmp_path: Path) -> None:
    for name in ("wrk_dead", "wrk_alive"):
        (tmp_path / name / "job_a.t1").mkdir(parents=True)
    (tmp_path / "wrk_dead.lock").touch()
    alive = try_lock(tmp_path / "wrk_alive.lock")
    assert alive is not None
    mine = WorkerFolder(tmp_path / "wrk_mine")
    assert names(tmp_path) == ["wrk_alive", "wrk_alive.lock", "wrk_mine", "wrk_mine.lock"]
    unlock(alive)
    mine.remove()


def test_a_folder_is_its_workers_until_it_is_removed(tmp_path: Path) -> None:
    first = WorkerFolder(tmp_path / "wrk_a")
    (first.path / "file").touch()
    second = WorkerFolder(tmp_path / "wrk_b")
    assert names(first.path) == ["file"]
    first.remove()
    assert names(tmp_path) == ["wrk_b", "wrk_b.lock"]
    first.path.mkdir()
    first.remove()
    assert first.path.is_dir()
    second.remove()
