"""How many rows a second several processes claim, with nothing behind a claim."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Final

from store import leases
from store.engine import open_database
from store.settings import StoreSettings

_PATIENCE_SECONDS: Final = 600.0
_Taken = tuple[list[str], float]
"""The jobs that a process has claimed, and when it found no more."""


def claim_all(settings: StoreSettings, processes: int) -> tuple[list[str], float]:
    """Every claim of these processes, and the seconds from their common start to the last one."""
    context = multiprocessing.get_context("spawn")
    # None of them begins before all have imported what they need.
    start, taken = context.Barrier(processes + 1), context.Queue()
    with _running(
        [
            context.Process(target=_claim, args=(settings.database_address(), name, start, taken))
            for name in range(processes)
        ]
    ):
        start.wait(_PATIENCE_SECONDS)
        began = time.monotonic()
        found: list[_Taken] = [taken.get(timeout=_PATIENCE_SECONDS) for _ in range(processes)]
    claimed = [job_id for job_ids, _ in found for job_id in job_ids]
    return claimed, max(ended for _, ended in found) - began


@contextmanager
def _running(processes: list[multiprocessing.context.SpawnProcess]) -> Iterator[None]:
    for process in processes:
        process.start()
    yield
    for process in processes:
        process.join()


def _claim(url: str, name: int, start: Barrier, taken: Queue[_Taken]) -> None:
    """Claims one row after the other until none is left."""
    database = open_database(url)
    claimed: list[str] = []
    start.wait(_PATIENCE_SECONDS)
    while True:
        claim = database.transact(
            lambda session: leases.claim(session, f"wrk_{name}", ["default"], lease_seconds=3600)
        )
        if claim is None:
            break
        claimed.append(claim.job.id)
    taken.put((claimed, time.monotonic()))
    database.close()
