"""Chores: one round at a time, and not too often."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from store import generations
from store.generations import NewGeneration
from store.models import Generation
from store.objects import FolderStore
from store.pages import PageRequest
from store.settings import StoreSettings
from tests.faults.harness import service
from worker.chores import ChoreStation

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
GONE = ("jobs/job_a/spec.json", "jobs/job_b/spec.json")


def put_rubbish(objects: FolderStore) -> None:
    """Objects of two jobs without a row, two days old."""
    then = time.time() - 48 * 3600
    for key in GONE:
        objects.write(key, b"{}")
        os.utime(objects.root / key, (then, then))


class Stopping(FolderStore):
    """Tells the worker to stop when it deletes something."""

    def __init__(self, root: Path, stopping: threading.Event) -> None:
        super().__init__(root)
        self._stopping = stopping

    def delete(self, key: str) -> None:
        """Deletes the object."""
        super().delete(key)
        self._stopping.set()


def test_rubbish_goes_once_per_rest(stack: StoreSettings, tmp_path: Path) -> None:
    with service(stack, tmp_path) as running:
        objects = FolderStore(tmp_path / "objects")
        context = replace(running.station()._context, objects=objects)
        station = ChoreStation(context)
        put_rubbish(objects)
        station.drain()
        assert objects.list() == ()
        put_rubbish(objects)
        station.drain()
        assert objects.list() == GONE
        rested = ChoreStation(context, rest_seconds=0.0)
        rested.drain()
        assert objects.list() == ()
        rested.stop()


def test_old_generations_go_where_the_operator_says_so(
    stack: StoreSettings, tmp_path: Path
) -> None:
    with service(stack, tmp_path) as running:
        context = running.station()._context
        new = NewGeneration(request={}, batch_key="a")
        with context.database.write() as session:
            generations.create(session, new)
            generations.cancel(session, new.id, "default")
            then = datetime.now(tz=UTC) - timedelta(days=2)
            session.execute(update(Generation).values(finished_at=then))
        for days, left in ((None, 1), (3.0, 1), (1.0, 0)):
            settings = context.settings.model_copy(update={"keep_generations_days": days})
            ChoreStation(replace(context, settings=settings)).drain()
            with context.database.read() as session:
                assert len(generations.page(session, "default", PageRequest()).rows) == left


def test_a_stopping_worker_begins_nothing(stack: StoreSettings, tmp_path: Path) -> None:
    with service(stack, tmp_path) as running:
        objects = FolderStore(tmp_path / "objects")
        context = replace(running.station()._context, objects=objects)
        context.stopping.set()
        put_rubbish(objects)
        ChoreStation(context).drain()
        assert objects.list() == GONE


def test_a_round_ends_at_the_next_row_once_the_worker_stops(
    stack: StoreSettings, tmp_path: Path
) -> None:
    with service(stack, tmp_path) as running:
        context = running.station()._context
        objects = Stopping(tmp_path / "objects", context.stopping)
        put_rubbish(objects)
        ChoreStation(replace(context, objects=objects)).drain()
        assert objects.list() == GONE[1:]
