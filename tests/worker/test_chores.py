"""Chores: one round at a time, and not too often."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.settings import StoreSettings
from tests.faults.harness import service
from worker.chores import ChoreStation

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def test_rubbish_goes_once_per_rest(stack: StoreSettings, tmp_path: Path) -> None:
    with service(stack, tmp_path) as running:
        station = ChoreStation(running.station()._context)
        running.objects.write("jobs/job_gone/spec.json", b"{}")
        station.drain()
        assert running.objects.list() == ()
        running.objects.write("jobs/job_gone/spec.json", b"{}")
        station.drain()
        assert running.objects.list() == ("jobs/job_gone/spec.json",)
        rested = ChoreStation(running.station()._context, rest_seconds=0.0)
        rested.drain()
        assert running.objects.list() == ()
        rested.stop()


def test_a_stopping_worker_begins_nothing(stack: StoreSettings, tmp_path: Path) -> None:
    with service(stack, tmp_path) as running:
        context = running.station()._context
        context.stopping.set()
        running.objects.write("jobs/job_gone/spec.json", b"{}")
        ChoreStation(context).drain()
        assert running.objects.list() == ("jobs/job_gone/spec.json",)
