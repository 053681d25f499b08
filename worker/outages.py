"""Patience with a database or an object store that is away for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from store.errors import BusyError, LostCommitError, StoreError

_T = TypeVar("_T")
_LOG: Final = logging.getLogger(__name__)
OUTAGES: Final = (
    OperationalError,
    InterfaceError,
    PoolTimeoutError,
    BusyError,
    # What is written about a job is signed; a generation that ended is held by nobody any more.
    LostCommitError,
)
"""What a database that is away, full or overrun raises; anything else is a fault of the code."""
_FIRST_WAIT_SECONDS: Final = 0.25
_LONGEST_WAIT_SECONDS: Final = 5.0


class StorageError(StoreError):
    """The object store, or the local disk, kept refusing."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what} could not be stored: {self.reason}"


def until_answered(work: Callable[[], _T], give_up: Callable[[], bool]) -> _T:
    """The result of a transaction, tried again for as long as the database is away.

    Raises the last error once `give_up` says so.
    """
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            return work()
        except OUTAGES as error:
            if give_up():
                raise
            _LOG.warning("the database is away, trying again: %s", error)
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


def storing(
    what: str, work: Callable[[], _T], give_up: Callable[[], bool], *, patience_seconds: float = 4.0
) -> _T:
    """The result of something that stores, tried again for a while; raises StorageError then."""
    deadline = time.monotonic() + patience_seconds
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            return work()
        except FileNotFoundError as error:  # of this machine: it will not come back
            raise StorageError(what, str(error)) from error
        except Exception as error:  # each kind of bucket has errors of its own
            reason = str(error) or type(error).__name__
            if give_up() or time.monotonic() >= deadline:
                raise StorageError(what, reason) from error
            _LOG.warning("%s could not be stored, trying again: %s", what, reason)
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
