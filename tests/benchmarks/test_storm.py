"""A small storm over the real service, and a verdict that notices each broken promise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from benchmarks.results import read_csv, read_json
from benchmarks.service import storm
from benchmarks.service.storm_faults import Storm
from benchmarks.service.storm_verdict import PROMISES, Verdict, judge, waits_seconds
from store.models import JobEvent
from store.settings import StoreSettings
from tests.faults.harness import Service, forked_service

ON_SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


@pytest.fixture
def running(stack: StoreSettings, tmp_path: Path) -> Iterator[Service]:
    with forked_service(stack, tmp_path) as found:
        yield found


@ON_SQLITE
def test_a_small_storm_breaks_no_promise(running: Service) -> None:
    strikes = Storm(service=running, draw=random.Random(1))
    plan = storm.Plan(jobs=3, faults=3, pause_seconds=0.5)
    planned = storm.blow(strikes, plan)
    assert (len(planned), sum(strikes.hits.values())) == (3, 3)
    verdict = judge(running, planned, strikes.cancelled)
    assert verdict.broken == {name: [] for name in PROMISES}
    assert verdict.made >= verdict.needed > 0
    ended = verdict.statuses["succeeded"] + verdict.statuses["cancelled"]
    assert (ended, verdict.statuses["cancelled"]) == (3, len(strikes.cancelled))


@ON_SQLITE
def test_each_broken_promise_is_found(running: Service) -> None:
    station = running.station()
    whole, doubled, torn, gap = (running.create(updates=3) for _ in range(4))
    for job_id in (whole, doubled, torn, gap):
        running.work_off(job_id, station)
    unfinished = running.create(updates=3)
    late = f"update {doubled} 0 1 3\n"
    with running.journal.open("a") as journal:
        journal.write(late)
    [row, *_] = running.objects.list(f"jobs/{torn}/artifacts/")
    running.objects.write(row, b"torn")
    with running.database.write() as session:
        session.execute(text("DELETE FROM job_events WHERE job_id = :id AND seq = 2"), {"id": gap})
    planned = dict.fromkeys((whole, doubled, torn, gap, unfinished), 3)
    found = judge(running, planned, set()).broken
    assert found["lost"] == [unfinished]
    assert (found["doubled"], found["torn"], found["gaps"]) == ([doubled], [torn], [gap])


def test_a_wait_is_from_the_queue_to_the_first_update() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    steps = [("job.created", 0), ("job.started", 1), ("job.retrying", 5), ("job.preparing", 6)]
    steps += [("job.started", 8), ("job.queued", 9), ("job.resumed", 20), ("job.started", 23)]
    history = [JobEvent(type=name, created_at=began + timedelta(seconds=at)) for name, at in steps]
    assert list(waits_seconds(history)) == [3.0, 3.0]


def test_a_row_says_what_was_repeated(tmp_path: Path) -> None:
    verdict = Verdict(made=110, needed=100, waits_seconds=[1.0, 2.0, 9.0])
    verdict.broken = {"lost": ["a"], "doubled": [], "torn": [], "gaps": []}
    verdict.statuses["succeeded"] = 5
    row = storm.row_of("sqlite", 90.0, 7, verdict, 0)
    assert (row["jobs"], row["faults"], row["lost"], row["doubled"]) == (5, 7, 1, 0)
    assert (row["rework_percent"], row["wait_median_s"], row["wait_max_s"]) == (10.0, 2.0, 9.0)
    csv = tmp_path / "storm.csv"
    storm.save(row, {"seed": 1}, csv)
    storm.save({**row, "stack": "postgresql"}, {"seed": 2}, csv)
    storm.save({**row, "lost": 0}, {"seed": 3}, csv)
    assert [(kept["stack"], kept["lost"]) for kept in read_csv(csv)] == [
        ("sqlite", "0"),
        ("postgresql", "1"),
    ]
    stacks = read_json(csv.with_suffix(".json"))["stacks"]
    assert {name: facts["seed"] for name, facts in stacks.items()} == {"sqlite": 3, "postgresql": 2}
