"""The train station apart from attempts: shares of GPUs, and what dead workers left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.locks import try_lock, unlock
from worker.train.supervisor import remove_dead_folders, share_of


@pytest.mark.parametrize(
    ("gpus", "slots", "shares"),
    [
        ((), 2, [(), ()]),
        (("0",), 1, [("0",)]),
        (("0", "1"), 1, [("0", "1")]),
        (("0", "1"), 2, [("0",), ("1",)]),
        (("0", "1", "2"), 2, [("0", "2"), ("1",)]),
        (("5",), 3, [("5",), ("5",), ("5",)]),
    ],
)
def test_slots_share_the_gpus(
    gpus: tuple[str, ...], slots: int, shares: list[tuple[str, ...]]
) -> None:
    assert [share_of(gpus, slot, slots) for slot in range(slots)] == shares


def test_only_folders_of_dead_workers_go(tmp_path: Path) -> None:
    for name in ("wrk_dead", "wrk_alive"):
        (tmp_path / name / "job_a.t1").mkdir(parents=True)
    (tmp_path / "wrk_dead.lock").touch()
    alive = try_lock(tmp_path / "wrk_alive.lock")
    assert alive is not None
    remove_dead_folders(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrk_alive", "wrk_alive.lock"]
    unlock(alive)
