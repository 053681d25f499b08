from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from store import generation_leases, generations
from store.attempts import Ending
from store.errors import LeaseLostError, NotFoundError
from store.generation_leases import ClaimedGeneration
from store.leases import Report
from store.models import Generation
from store.pages import PageRequest
from store.states import GenerationStatus
from tests.store.serving import IMAGE, claim, create, get, issued_key

if TYPE_CHECKING:
    from tests.store.conftest import Bench

S = GenerationStatus


def _release(bench: Bench, claimed: ClaimedGeneration, ending: Ending) -> Generation:
    return bench.database.transact(
        lambda session: generation_leases.release(session, claimed.lease, ending)
    )


def _let_wait_pass(bench: Bench, generation_id: str) -> None:
    past = datetime.now(tz=UTC) - timedelta(hours=1)
    bench.set(Generation, generation_id, run_after=past)


def test_a_batch_is_all_that_runs_alike(bench: Bench) -> None:
    first, other, second = (create(bench, key) for key in "aba")
    batch = claim(bench)
    assert [claimed.generation.id for claimed in batch] == [first.id, second.id]
    assert {claimed.generation.status for claimed in batch} == {S.RUNNING}
    assert [claimed.lease.token for claimed in batch] == [1, 1]
    assert [claimed.generation.id for claimed in claim(bench)] == [other.id]
    assert claim(bench) == ()


def test_a_batch_has_its_most_and_the_urgent_come_first(bench: Bench) -> None:
    made = [create(bench, priority=priority) for priority in (0, 0, 5)]
    batch = claim(bench, most=2)
    assert [claimed.generation.id for claimed in batch] == [made[2].id, made[0].id]


def _served(bench: Bench, count: int) -> list[str]:
    """Ids in the order of claims, one at a time."""
    return [claim(bench, most=1)[0].generation.id for _ in range(count)]


def test_many_requests_of_one_caller_do_not_starve_others(bench: Bench) -> None:
    many = [create(bench, project="busy").id for _ in range(8)]
    assert _served(bench, 2) == many[:2]
    few = [create(bench, project="quiet").id for _ in range(3)]
    assert _served(bench, 7) == [many[2], few[0], many[3], few[1], many[4], few[2], many[5]]
    # Whoever comes later begins in the round being served, not in one that is over.
    late = create(bench, project="quiet").id
    assert _served(bench, 3) == [many[6], late, many[7]]


def test_a_batch_holds_requests_of_several_callers(bench: Bench) -> None:
    many = [create(bench, project="busy").id for _ in range(8)]
    few = [create(bench, project="quiet").id for _ in range(2)]
    batch = [claimed.generation.id for claimed in claim(bench, most=4)]
    assert batch == [many[0], few[0], many[1], few[1]]


def test_keys_of_one_project_take_turns(bench: Bench) -> None:
    issued = [issued_key(bench) for _ in range(2)]
    many = [create(bench, api_key_id=issued[0]).id for _ in range(3)]
    other = create(bench, api_key_id=issued[1]).id
    assert _served(bench, 4) == [many[0], other, many[1], many[2]]


def test_a_request_that_waits_for_its_next_try_holds_up_no_round(bench: Bench) -> None:
    first, *rest = [create(bench, project="busy").id for _ in range(4)]
    (claimed,) = claim(bench, most=1)
    _release(bench, claimed, Ending.CRASHED)
    bench.set(Generation, first, run_after=datetime.now(tz=UTC) + timedelta(hours=1))
    other = [create(bench, project="quiet").id for _ in range(2)]
    assert _served(bench, 5) == [rest[0], other[0], rest[1], other[1], rest[2]]


def test_the_images_are_published_with_the_end(bench: Bench) -> None:
    made = create(bench)
    (claimed,) = claim(bench)
    with bench.database.write() as session:
        generation_leases.succeed(session, claimed.lease, [IMAGE, IMAGE], {"warnings": ["w"]})
    found = get(bench, made.id)
    assert found.outcome == {"warnings": ["w"]}
    assert found.status is S.SUCCEEDED
    assert [(image.position, image.seed) for image in found.images] == [(0, 7), (1, 7)]
    with bench.database.read() as session:
        image = generations.image(session, found.images[0].id, "default")
        assert (image.object_key, image.scores) == ("images/a.png", {"oracle": 1.0})
        with pytest.raises(NotFoundError):
            generations.image(session, image.id, "theirs")
        with pytest.raises(NotFoundError):
            generations.get(session, made.id, "theirs")
        page = generations.page(session, "default", PageRequest())
    assert [row.id for row in page.rows] == [made.id]


def test_a_row_that_failed_is_claimed_alone(bench: Bench) -> None:
    poison, innocent = create(bench), create(bench)
    batch = claim(bench)
    for claimed in batch:
        assert _release(bench, claimed, Ending.CRASHED).status is S.QUEUED
        _let_wait_pass(bench, claimed.generation.id)
    fresh = create(bench)
    (alone,) = claim(bench)
    assert alone.generation.id == poison.id
    failed = _release(bench, alone, Ending.CRASHED)
    assert (failed.status, failed.error_code) == (S.FAILED, "crashed")
    assert [claimed.generation.id for claimed in claim(bench)] == [innocent.id]
    assert [claimed.generation.id for claimed in claim(bench)] == [fresh.id]


def test_a_row_that_failed_joins_no_batch_of_others(bench: Bench) -> None:
    failed = create(bench)
    (claimed,) = claim(bench)
    _release(bench, claimed, Ending.CRASHED)
    _let_wait_pass(bench, failed.id)
    urgent = create(bench, priority=1)
    assert [claimed.generation.id for claimed in claim(bench)] == [urgent.id]
    assert [claimed.generation.id for claimed in claim(bench)] == [failed.id]


def _lose_worker(bench: Bench, batch: tuple[ClaimedGeneration, ...]) -> None:
    """The worker of a batch dies without a word, and its requests may be tried again."""
    for claimed in batch:
        bench.expire(Generation, claimed.generation.id)
    bench.database.transact(generation_leases.sweep)
    for claimed in batch:
        _let_wait_pass(bench, claimed.generation.id)


def test_a_request_that_kills_its_worker_takes_no_other_with_it(bench: Bench) -> None:
    poison, innocent = create(bench), create(bench)
    together = claim(bench)
    assert len(together) == 2
    _lose_worker(bench, together)
    fresh = [create(bench) for _ in range(2)]
    for _ in range(2):
        alone = claim(bench)
        assert [claimed.generation.id for claimed in alone] == [poison.id]
        _lose_worker(bench, alone)
    assert get(bench, poison.id).error_code == "worker_lost"
    (spared,) = claim(bench)
    assert (spared.generation.id, spared.generation.lost_leases) == (innocent.id, 1)
    assert [claimed.generation.id for claimed in claim(bench)] == [row.id for row in fresh]


def test_a_lost_row_joins_no_batch_of_others(bench: Bench) -> None:
    lost = create(bench)
    _lose_worker(bench, claim(bench))
    urgent = create(bench, priority=1)
    assert [claimed.generation.id for claimed in claim(bench)] == [urgent.id]
    assert [claimed.generation.id for claimed in claim(bench)] == [lost.id]


def test_an_old_token_can_write_nothing(bench: Bench) -> None:
    made = create(bench)
    (old,) = claim(bench)
    bench.expire(Generation, made.id)
    bench.database.transact(generation_leases.sweep)
    _let_wait_pass(bench, made.id)
    (new,) = claim(bench)
    assert (old.lease.token, new.lease.token) == (1, 3)
    with bench.database.write() as session:
        assert generation_leases.renew(session, [old.lease]) == frozenset()
        writes: list[Callable[[], object]] = [
            lambda: generation_leases.succeed(session, old.lease, [IMAGE]),
            lambda: generation_leases.fail(session, old.lease, Report()),
            lambda: generation_leases.release(session, old.lease, Ending.CRASHED),
        ]
        for write in writes:
            with pytest.raises(LeaseLostError):
                write()
    found = get(bench, made.id)
    assert (found.status, found.images) == (S.RUNNING, [])


def test_an_orderly_stop_requeues_at_once(bench: Bench) -> None:
    create(bench)
    (claimed,) = claim(bench)
    queued = _release(bench, claimed, Ending.STOPPED)
    assert (queued.status, queued.attempt, queued.finished_at) == (S.QUEUED, 0, None)
    assert len(claim(bench)) == 1


def test_a_permanent_error_fails_it(bench: Bench) -> None:
    create(bench)
    (claimed,) = claim(bench)
    report = Report(error_code="model_not_found", error_message="No such model.")
    failed = bench.database.transact(
        lambda session: generation_leases.fail(session, claimed.lease, report)
    )
    assert (failed.status, failed.error_code) == (S.FAILED, "model_not_found")
    for write in (
        lambda session: generation_leases.fail(session, claimed.lease, report),
        lambda session: generation_leases.release(session, claimed.lease, Ending.STOPPED),
    ):
        with pytest.raises(LeaseLostError):
            bench.database.transact(write)


def test_expired_leases_are_swept_up_to_the_limit(bench: Bench) -> None:
    made = create(bench)
    for lost in (1, 2, 3):
        (claimed,) = claim(bench)
        bench.expire(Generation, made.id)
        (swept,) = bench.database.transact(generation_leases.sweep)
        assert swept.lost_leases == lost
        with pytest.raises(LeaseLostError), bench.database.write() as session:
            generation_leases.succeed(session, claimed.lease, [IMAGE])
        if lost < 3:
            _let_wait_pass(bench, made.id)
    found = get(bench, made.id)
    assert (found.status, found.error_code) == (S.FAILED, "worker_lost")
    assert bench.database.transact(generation_leases.sweep) == ()


def test_workers_are_told_once_in_a_while(bench: Bench) -> None:
    assert not bench.database.transact(generation_leases.unwoken)
    assert not bench.database.transact(generation_leases.is_due)
    made = create(bench)
    assert bench.database.transact(generation_leases.unwoken)
    assert not bench.database.transact(generation_leases.unwoken)
    assert bench.database.transact(generation_leases.is_due)
    bench.set(Generation, made.id, woken_at=datetime.now(tz=UTC) - timedelta(seconds=16))
    assert bench.database.transact(generation_leases.unwoken)
