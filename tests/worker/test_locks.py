"""Locks between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from worker.locks import held, try_lock, unlock

HOLD = """
import sys
from pathlib import Path
from worker.locks import try_lock
file = try_lock(Path(sys.argv[1]))
print("held" if file else "busy", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "gpu-0.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert try_lock(path) is None
        holder.kill()
        holder.wait()
        file = try_lock(path)
        assert file is not None
        unlock(file)
    assert not path.exists()


def test_waiting_is_told_once_and_may_be_given_up(tmp_path: Path) -> None:
    path = tmp_path / "gpu-0.lock"
    file = try_lock(path)
    assert file is not None
    told: list[Path] = []
    looks = iter([False, False, True])
    with held([path], give_up=lambda: next(looks), on_wait=told.append) as free:
        assert not free
    assert told == [path]
    unlock(file)


def test_all_are_held_and_removed(tmp_path: Path) -> None:
    paths = [tmp_path / "a.lock", tmp_path / "b.lock"]
    with held(paths, give_up=lambda: True, on_wait=lambda _: None) as free:
        assert free
        assert [try_lock(path) for path in paths] == [None, None]
    assert not any(path.exists() for path in paths)


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    first = try_lock(path)
    assert first is not None
    unlock(first)
    second = try_lock(path)
    assert second is not None
    assert path.exists()
    assert try_lock(path) is None
    unlock(second)
