"""Patience with a database or a store that is away."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from worker import outages
from worker.outages import StorageError, storing, until_answered


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_FIRST_WAIT_SECONDS", 0.0)


class Away:
    """Fails a few times, then answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left, self.error = failures, error

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


def gone() -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception("server closed the connection"))


def test_a_database_is_waited_for() -> None:
    assert until_answered(Away(20, gone()), lambda: False) == "answer"


def test_waiting_may_be_given_up() -> None:
    away = Away(20, gone())
    with pytest.raises(OperationalError):
        until_answered(away, lambda: away.left < 15)
    assert away.left == 14


def test_a_fault_is_not_waited_for() -> None:
    away = Away(20, IntegrityError("INSERT", {}, Exception("unique")))
    with pytest.raises(IntegrityError):
        until_answered(away, lambda: False)
    assert away.left == 19


def test_a_store_is_waited_for() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert storing("a/key", Away(20, full), lambda: False) == "answer"


def test_a_store_that_stays_away_is_named() -> None:
    away = Away(20, ConnectionError("no route to the bucket"))
    with pytest.raises(StorageError, match=r"^a/key could not be stored: no route to the bucket$"):
        storing("a/key", away, lambda: False, patience_seconds=0.0)
    assert away.left == 19


def test_a_local_file_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    tries: list[int] = []

    def read() -> bytes:
        tries.append(1)
        return (tmp_path / "gone").read_bytes()

    with pytest.raises(StorageError, match="No such file"):
        storing("a/key", read, lambda: False)
    assert len(tries) == 1
