"""Keeping a lease: renewals are passed on, wishes are heard, outages are survived."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from store import jobs
from store.leases import claim
from store.states import JobStatus
from tests.faults.harness import Service
from worker.protocol import Control, elapsed_seconds
from worker.train.lease_keeper import LeaseKeeper

SECONDS = 20.0


class Trainer:
    """Hears what a trainer would."""

    def __init__(self) -> None:
        self.heard: list[Control] = []
        self.changed = threading.Condition()

    def __call__(self, order: Control) -> None:
        with self.changed:
            self.heard.append(order)
            self.changed.notify_all()

    def until(self, control: str, times: int = 1) -> None:
        with self.changed:
            found = self.changed.wait_for(lambda: self.count(control) >= times, SECONDS)
        assert found, self.heard

    def count(self, control: str) -> int:
        return [order.control for order in self.heard].count(control)  # type: ignore[arg-type]


@pytest.fixture
def job_id(running: Service) -> str:
    return running.create(updates=1)


@pytest.fixture
def keeper(running: Service, job_id: str) -> Iterator[LeaseKeeper]:
    claimed = running.database.transact(lambda session: claim(session, "wrk_a", ["default"]))
    assert claimed is not None
    times = running.settings.model_copy(update={"heartbeat_seconds": 0.1, "lease_seconds": 60.0})
    found = LeaseKeeper(
        running.database, claimed.lease, times, control_seconds=0.02, claimed_at=elapsed_seconds()
    )
    found.start()
    yield found
    found.stop()


def test_renewals_reach_the_row_and_the_trainer(
    running: Service, job_id: str, keeper: LeaseKeeper
) -> None:
    before = running.job(job_id).heartbeat_at
    trainer = Trainer()
    keeper.attach(trainer)
    trainer.until("ok", 3)
    after = running.job(job_id).heartbeat_at
    assert before is not None
    assert after is not None
    assert after > before
    renewed = [order.renewed_at for order in trainer.heard]
    assert renewed == sorted(set(renewed))
    assert elapsed_seconds() - SECONDS < renewed[0] < renewed[-1] == keeper.renewed_at


def test_wishes_are_told_once_and_also_to_a_trainer_that_comes_late(
    running: Service, job_id: str, keeper: LeaseKeeper
) -> None:
    running.database.transact(lambda session: jobs.pause(session, job_id))
    early = Trainer()
    keeper.attach(early)
    early.until("pause")
    late = Trainer()
    keeper.attach(late)
    late.until("pause")
    running.database.transact(lambda session: jobs.cancel(session, job_id))
    late.until("cancel")
    late.until("ok", 3)
    assert (late.count("pause"), late.count("cancel"), keeper.wish) == (1, 1, "cancel")
    assert running.job(job_id).status is JobStatus.CANCELLING


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_database_that_is_away_for_a_while_costs_nothing(
    running: Service, keeper: LeaseKeeper
) -> None:
    database = running.settings.data_dir / "shortft.db"
    trainer = Trainer()
    keeper.attach(trainer)
    trainer.until("ok", 2)
    running.database.close()
    # Replaced in one step each time: a file that is missing for a moment would be made anew.
    (hidden := database.with_name("hidden")).hardlink_to(database)
    (nowhere := database.with_name("nowhere")).symlink_to("absent/file")
    nowhere.replace(database)
    heard = len(trainer.heard)
    threading.Event().wait(0.5)
    assert len(trainer.heard) <= heard + 1
    hidden.replace(database)
    trainer.until("ok", heard + 2)
    assert not keeper.lost.is_set()


def test_a_lease_of_another_is_told(running: Service, keeper: LeaseKeeper) -> None:
    trainer = Trainer()
    keeper.attach(trainer)
    with running.database.write() as session:
        session.connection().exec_driver_sql("UPDATE jobs SET lease_token = lease_token + 1")
    trainer.until("lost")
    assert keeper.lost.wait(SECONDS)
