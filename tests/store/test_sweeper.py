from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL

from store import generation_leases, generations
from store.broker import Queue
from store.engine import Database, open_database
from store.generations import NewGeneration
from store.models import Generation, Job
from store.settings import StoreSettings
from store.states import JobStatus
from store.sweeper import Sweeper
from tests.servers.processes import wait_until

if TYPE_CHECKING:
    from tests.store.conftest import Bench

SETTINGS = StoreSettings(sweep_seconds=0.02, wake_again_seconds=3600, backoff_seconds=0)


NOTHING: frozenset[Queue] = frozenset()


class Recorder:
    """A bell whose rings are counted."""

    def __init__(self) -> None:
        self.rung: list[Queue] = []

    def ring(self, queue: Queue) -> None:
        self.rung.append(queue)


@pytest.fixture
def bell() -> Recorder:
    return Recorder()


def _generate(bench: Bench) -> Generation:
    new = NewGeneration(request={}, batch_key="a")
    return bench.database.transact(lambda session: generations.create(session, new))


def test_what_is_due_is_told_once_and_reported_always(bench: Bench, bell: Recorder) -> None:
    sweeper = Sweeper(bench.database, bell, SETTINGS)
    first = sweeper.sweep_once()
    assert (first.due, first.rung) == (NOTHING, frozenset({Queue.DEFAULT}))
    bench.create()
    _generate(bench)
    work = frozenset({Queue.TRAIN, Queue.GENERATE})
    second, third = sweeper.sweep_once(), sweeper.sweep_once()
    assert (second.due, second.rung) == (work, work)
    assert (third.due, third.rung) == (work, NOTHING)
    assert sorted(bell.rung) == [Queue.DEFAULT, Queue.GENERATE, Queue.TRAIN]


def test_what_nobody_came_for_is_told_again(bench: Bench, bell: Recorder) -> None:
    job = bench.create()
    sweeper = Sweeper(bench.database, bell, SETTINGS)
    assert Queue.TRAIN in sweeper.sweep_once().rung
    bench.set(Job, job.id, woken_at=datetime.now(tz=UTC) - timedelta(hours=2))
    assert sweeper.sweep_once().rung == {Queue.TRAIN}
    bench.claim()
    assert sweeper.sweep_once().due == NOTHING


def test_expired_attempts_are_ended_and_wait_as_set(bench: Bench, bell: Recorder) -> None:
    job, made = bench.create(), _generate(bench)
    bench.claim()
    bench.database.transact(lambda session: generation_leases.claim_batch(session, "wrk_a", most=1))
    bench.expire(Job, job.id)
    bench.expire(Generation, made.id)
    swept = Sweeper(bench.database, bell, SETTINGS).sweep_once()
    assert (swept.ended_jobs, swept.ended_generations) == (1, 1)
    found = bench.get(job.id)
    assert found.status is JobStatus.QUEUED
    assert found.run_after <= datetime.now(tz=UTC)
    # Queued again without a pause, it is told of in the same sweep.
    assert Queue.TRAIN in swept.rung


def test_chores_come_once_in_six_sweeps(bench: Bench, bell: Recorder) -> None:
    sweeper = Sweeper(bench.database, bell, SETTINGS)
    for _ in range(13):
        sweeper.sweep_once()
    assert bell.rung == [Queue.DEFAULT] * 3


def test_the_thread_sweeps_until_it_is_stopped(bench: Bench, bell: Recorder) -> None:
    seen: list[frozenset[Queue]] = []
    sweeper = Sweeper(bench.database, bell, SETTINGS, on_due=seen.append)
    sweeper.start()
    wait_until(lambda: Queue.DEFAULT in bell.rung)
    assert seen == []
    bench.create()
    wait_until(lambda: len(seen) >= 2)
    sweeper.stop()
    assert set(seen) == {frozenset({Queue.TRAIN})}
    assert bell.rung.count(Queue.TRAIN) == 1
    rung, told = len(bell.rung), len(seen)
    bench.create()
    assert (len(bell.rung), len(seen), sweeper.failures) == (rung, told, 0)


def test_a_sweeper_outlives_its_database(empty_database: Database, bell: Recorder) -> None:
    sweeper = Sweeper(empty_database, bell, SETTINGS)
    sweeper.start()
    wait_until(lambda: sweeper.failures >= 2)
    sweeper.stop()
    assert bell.rung == []


def test_one_that_never_started_can_be_stopped(database: Database, bell: Recorder) -> None:
    sweeper = Sweeper(database, bell, SETTINGS)
    sweeper.stop()
    assert (bell.rung, sweeper.failures) == ([], 0)


def test_of_many_sweepers_one_ends_an_attempt(bench: Bench, bell: Recorder, url: URL) -> None:
    made = [bench.create() for _ in range(5)]
    for job in made:
        bench.claim()
        bench.expire(Job, job.id)
    other = open_database(url)
    sweepers = [Sweeper(database, bell, SETTINGS) for database in (bench.database, other)]
    for sweeper in sweepers:
        sweeper.start()
    wait_until(lambda: all(bench.get(job.id).lost_leases for job in made))
    for sweeper in sweepers:
        sweeper.stop()
    other.close()
    for job in made:
        assert bench.types(job.id) == ["job.created", "job.preparing", "job.retrying"]
