from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import URL

from store import api_keys, generations
from store.api_keys import NewApiKey
from store.attempts import Ending
from store.engine import Database
from store.errors import InvalidStateError, LeaseLostError, NotFoundError, QuotaExceededError
from store.generations import ClaimedGeneration, NewGeneration, NewImage
from store.leases import Report
from store.models import Generation
from store.objects import StoredObject
from store.pages import PageRequest
from store.states import GenerationStatus
from tests.store.conftest import at_once

if TYPE_CHECKING:
    from tests.store.conftest import Bench

S = GenerationStatus
IMAGE = NewImage(
    stored=StoredObject("images/a.png", "0" * 64, 9),
    prompt="a star",
    seed=7,
    width=64,
    height=64,
    scores={"oracle": 1.0},
)


def _create(bench: Bench, batch_key: str = "a", **fields: Any) -> Generation:
    new = NewGeneration(request={"prompt": "a star"}, batch_key=batch_key, **fields)
    return bench.database.transact(lambda session: generations.create(session, new))


def _claim(bench: Bench, most: int = 8) -> tuple[ClaimedGeneration, ...]:
    return bench.database.transact(
        lambda session: generations.claim_batch(session, "wrk_a", most=most)
    )


def _get(bench: Bench, generation_id: str) -> Generation:
    with bench.database.read() as session:
        return generations.get(session, generation_id, "default")


def _release(bench: Bench, claimed: ClaimedGeneration, ending: Ending) -> Generation:
    return bench.database.transact(
        lambda session: generations.release(session, claimed.lease, ending)
    )


def _key(bench: Bench) -> str:
    new = NewApiKey(name="a", scopes=frozenset())
    row, _ = bench.database.transact(lambda session: api_keys.issue(session, b"x" * 32, new))
    return row.id


def _count_open(bench: Bench, api_key_id: str) -> int:
    with bench.database.read() as session:
        return generations.count_open(session, api_key_id)


def _let_wait_pass(bench: Bench, generation_id: str) -> None:
    past = datetime.now(tz=UTC) - timedelta(hours=1)
    bench.set(Generation, generation_id, run_after=past)


def test_a_batch_is_all_that_runs_alike(bench: Bench) -> None:
    first, other, second = (_create(bench, key) for key in "aba")
    batch = _claim(bench)
    assert [claimed.generation.id for claimed in batch] == [first.id, second.id]
    assert {claimed.generation.status for claimed in batch} == {S.RUNNING}
    assert [claimed.lease.token for claimed in batch] == [1, 1]
    assert [claimed.generation.id for claimed in _claim(bench)] == [other.id]
    assert _claim(bench) == ()


def test_a_batch_has_its_most_and_the_urgent_come_first(bench: Bench) -> None:
    made = [_create(bench, priority=priority) for priority in (0, 0, 5)]
    batch = _claim(bench, most=2)
    assert [claimed.generation.id for claimed in batch] == [made[2].id, made[0].id]


def _served(bench: Bench, count: int) -> list[str]:
    """Ids in the order of claims, one at a time."""
    return [_claim(bench, most=1)[0].generation.id for _ in range(count)]


def test_many_requests_of_one_caller_do_not_starve_others(bench: Bench) -> None:
    many = [_create(bench, project="busy").id for _ in range(8)]
    assert _served(bench, 2) == many[:2]
    few = [_create(bench, project="quiet").id for _ in range(3)]
    assert _served(bench, 7) == [many[2], few[0], many[3], few[1], many[4], few[2], many[5]]
    # Whoever comes later begins in the round being served, not in one that is over.
    late = _create(bench, project="quiet").id
    assert _served(bench, 3) == [many[6], late, many[7]]


def test_a_batch_holds_requests_of_several_callers(bench: Bench) -> None:
    many = [_create(bench, project="busy").id for _ in range(8)]
    few = [_create(bench, project="quiet").id for _ in range(2)]
    batch = [claimed.generation.id for claimed in _claim(bench, most=4)]
    assert batch == [many[0], few[0], many[1], few[1]]


def test_keys_of_one_project_take_turns(bench: Bench) -> None:
    issued = [_key(bench) for _ in range(2)]
    many = [_create(bench, api_key_id=issued[0]).id for _ in range(3)]
    other = _create(bench, api_key_id=issued[1]).id
    assert _served(bench, 4) == [many[0], other, many[1], many[2]]


def test_a_request_that_waits_for_its_next_try_holds_up_no_round(bench: Bench) -> None:
    first, *rest = [_create(bench, project="busy").id for _ in range(4)]
    (claimed,) = _claim(bench, most=1)
    _release(bench, claimed, Ending.CRASHED)
    bench.set(Generation, first, run_after=datetime.now(tz=UTC) + timedelta(hours=1))
    other = [_create(bench, project="quiet").id for _ in range(2)]
    assert _served(bench, 5) == [rest[0], other[0], rest[1], other[1], rest[2]]


def test_generations_are_counted_by_status(bench: Bench) -> None:
    for _ in range(3):
        _create(bench)
    _claim(bench, most=1)
    with bench.database.read() as session:
        counts = generations.count_by_status(session)
    assert counts == {S.QUEUED: 2, S.RUNNING: 1, S.SUCCEEDED: 0, S.FAILED: 0, S.CANCELLED: 0}


def test_the_images_are_published_with_the_end(bench: Bench) -> None:
    made = _create(bench)
    (claimed,) = _claim(bench)
    with bench.database.write() as session:
        generations.succeed(session, claimed.lease, [IMAGE, IMAGE], {"warnings": ["w"]})
    found = _get(bench, made.id)
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


def test_a_cancel_is_at_once_and_its_worker_is_refused(bench: Bench) -> None:
    kept, gone = _create(bench), _create(bench)
    batch = _claim(bench)
    cancelled = bench.database.transact(
        lambda session: generations.cancel(session, gone.id, "default")
    )
    assert cancelled.status is S.CANCELLED
    with bench.database.write() as session:
        leases = [claimed.lease for claimed in batch]
        assert generations.renew(session, leases) == {kept.id}
    with pytest.raises(LeaseLostError), bench.database.write() as session:
        generations.succeed(session, batch[1].lease, [IMAGE])
    assert _get(bench, gone.id).images == []
    with pytest.raises(InvalidStateError, match="is cancelled: cancel is refused"):
        bench.database.transact(lambda session: generations.cancel(session, gone.id, "default"))


def test_a_row_that_failed_is_claimed_alone(bench: Bench) -> None:
    poison, innocent = _create(bench), _create(bench)
    batch = _claim(bench)
    for claimed in batch:
        assert _release(bench, claimed, Ending.CRASHED).status is S.QUEUED
        _let_wait_pass(bench, claimed.generation.id)
    fresh = _create(bench)
    (alone,) = _claim(bench)
    assert alone.generation.id == poison.id
    failed = _release(bench, alone, Ending.CRASHED)
    assert (failed.status, failed.error_code) == (S.FAILED, "crashed")
    assert [claimed.generation.id for claimed in _claim(bench)] == [innocent.id]
    assert [claimed.generation.id for claimed in _claim(bench)] == [fresh.id]


def test_a_row_that_failed_joins_no_batch_of_others(bench: Bench) -> None:
    failed = _create(bench)
    (claimed,) = _claim(bench)
    _release(bench, claimed, Ending.CRASHED)
    _let_wait_pass(bench, failed.id)
    urgent = _create(bench, priority=1)
    assert [claimed.generation.id for claimed in _claim(bench)] == [urgent.id]
    assert [claimed.generation.id for claimed in _claim(bench)] == [failed.id]


def _lose_worker(bench: Bench, batch: tuple[ClaimedGeneration, ...]) -> None:
    """The worker of a batch dies without a word, and its requests may be tried again."""
    for claimed in batch:
        bench.expire(Generation, claimed.generation.id)
    bench.database.transact(generations.sweep)
    for claimed in batch:
        _let_wait_pass(bench, claimed.generation.id)


def test_a_request_that_kills_its_worker_takes_no_other_with_it(bench: Bench) -> None:
    poison, innocent = _create(bench), _create(bench)
    together = _claim(bench)
    assert len(together) == 2
    _lose_worker(bench, together)
    fresh = [_create(bench) for _ in range(2)]
    for _ in range(2):
        alone = _claim(bench)
        assert [claimed.generation.id for claimed in alone] == [poison.id]
        _lose_worker(bench, alone)
    assert _get(bench, poison.id).error_code == "worker_lost"
    (spared,) = _claim(bench)
    assert (spared.generation.id, spared.generation.lost_leases) == (innocent.id, 1)
    assert [claimed.generation.id for claimed in _claim(bench)] == [row.id for row in fresh]


def test_a_lost_row_joins_no_batch_of_others(bench: Bench) -> None:
    lost = _create(bench)
    _lose_worker(bench, _claim(bench))
    urgent = _create(bench, priority=1)
    assert [claimed.generation.id for claimed in _claim(bench)] == [urgent.id]
    assert [claimed.generation.id for claimed in _claim(bench)] == [lost.id]


def test_the_unfinished_of_a_key_are_counted(bench: Bench) -> None:
    key, other = _key(bench), _key(bench)
    _create(bench, api_key_id=other)
    _create(bench)
    made = [_create(bench, "b", api_key_id=key, priority=1) for _ in range(3)]
    _create(bench, "c", api_key_id=key, kind="score")
    assert _count_open(bench, key) == 4
    running, _ = _claim(bench, most=2)
    assert _count_open(bench, key) == 4
    bench.database.transact(lambda session: generations.succeed(session, running.lease, [IMAGE]))
    assert _count_open(bench, key) == 3
    bench.database.transact(lambda session: generations.cancel(session, made[2].id, "default"))
    assert (_count_open(bench, key), _count_open(bench, other)) == (2, 1)


def test_a_key_has_no_more_open_generations_than_it_may(bench: Bench, url: URL) -> None:
    key = _key(bench)
    done: list[str] = []

    def submit(database: Database) -> None:
        new = NewGeneration(request={}, batch_key="a", api_key_id=key)
        with suppress(QuotaExceededError):
            done.append(database.transact(lambda s: generations.create(s, new, most_open=3)).id)

    at_once(url, submit)
    assert (len(done), _count_open(bench, key)) == (3, 3)
    new = NewGeneration(request={}, batch_key="a", api_key_id=key)
    with pytest.raises(QuotaExceededError, match="3 of 3 generations of this key are unfinished"):
        bench.database.transact(lambda s: generations.create(s, new, most_open=3))
    _create(bench, api_key_id=key)
    assert _count_open(bench, key) == 4


def test_without_a_key_there_is_no_quota(bench: Bench) -> None:
    for _ in range(2):
        new = NewGeneration(request={}, batch_key="a")
        bench.database.transact(partial(generations.create, new=new, most_open=1))
    assert len(_claim(bench)) == 2


def test_an_old_token_can_write_nothing(bench: Bench) -> None:
    made = _create(bench)
    (old,) = _claim(bench)
    bench.expire(Generation, made.id)
    bench.database.transact(generations.sweep)
    _let_wait_pass(bench, made.id)
    (new,) = _claim(bench)
    assert (old.lease.token, new.lease.token) == (1, 3)
    with bench.database.write() as session:
        assert generations.renew(session, [old.lease]) == frozenset()
        writes: list[Callable[[], object]] = [
            lambda: generations.succeed(session, old.lease, [IMAGE]),
            lambda: generations.fail(session, old.lease, Report()),
            lambda: generations.release(session, old.lease, Ending.CRASHED),
        ]
        for write in writes:
            with pytest.raises(LeaseLostError):
                write()
    found = _get(bench, made.id)
    assert (found.status, found.images) == (S.RUNNING, [])


def test_an_orderly_stop_requeues_at_once(bench: Bench) -> None:
    _create(bench)
    (claimed,) = _claim(bench)
    queued = _release(bench, claimed, Ending.STOPPED)
    assert (queued.status, queued.attempt, queued.finished_at) == (S.QUEUED, 0, None)
    assert len(_claim(bench)) == 1


def test_a_permanent_error_fails_it(bench: Bench) -> None:
    _create(bench)
    (claimed,) = _claim(bench)
    report = Report(error_code="model_not_found", error_message="No such model.")
    failed = bench.database.transact(
        lambda session: generations.fail(session, claimed.lease, report)
    )
    assert (failed.status, failed.error_code) == (S.FAILED, "model_not_found")
    for write in (
        lambda session: generations.fail(session, claimed.lease, report),
        lambda session: generations.release(session, claimed.lease, Ending.STOPPED),
    ):
        with pytest.raises(LeaseLostError):
            bench.database.transact(write)


def test_expired_leases_are_swept_up_to_the_limit(bench: Bench) -> None:
    made = _create(bench)
    for lost in (1, 2, 3):
        (claimed,) = _claim(bench)
        bench.expire(Generation, made.id)
        (swept,) = bench.database.transact(generations.sweep)
        assert swept.lost_leases == lost
        with pytest.raises(LeaseLostError), bench.database.write() as session:
            generations.succeed(session, claimed.lease, [IMAGE])
        if lost < 3:
            _let_wait_pass(bench, made.id)
    found = _get(bench, made.id)
    assert (found.status, found.error_code) == (S.FAILED, "worker_lost")
    assert bench.database.transact(generations.sweep) == ()


def test_workers_are_told_once_in_a_while(bench: Bench) -> None:
    assert not bench.database.transact(generations.unwoken)
    assert not bench.database.transact(generations.is_due)
    made = _create(bench)
    assert bench.database.transact(generations.unwoken)
    assert not bench.database.transact(generations.unwoken)
    assert bench.database.transact(generations.is_due)
    bench.set(Generation, made.id, woken_at=datetime.now(tz=UTC) - timedelta(seconds=16))
    assert bench.database.transact(generations.unwoken)
