from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL

from store import generation_leases, generations
from store.engine import Database
from store.errors import InvalidStateError, LeaseLostError, NotFoundError, QuotaExceededError
from store.generations import NewGeneration
from store.states import GenerationStatus
from tests.store.conftest import at_once
from tests.store.serving import IMAGE, claim, create, get, issued_key

if TYPE_CHECKING:
    from tests.store.conftest import Bench

S = GenerationStatus


def _count_open(bench: Bench, api_key_id: str) -> int:
    with bench.database.read() as session:
        return generations.count_open(session, api_key_id)


def test_generations_are_counted_by_status(bench: Bench) -> None:
    for _ in range(3):
        create(bench)
    claim(bench, most=1)
    with bench.database.read() as session:
        counts = generations.count_by_status(session)
    assert counts == {S.QUEUED: 2, S.RUNNING: 1, S.SUCCEEDED: 0, S.FAILED: 0, S.CANCELLED: 0}


def test_a_cancel_is_at_once_and_its_worker_is_refused(bench: Bench) -> None:
    kept, gone = create(bench), create(bench)
    batch = claim(bench)
    cancelled = bench.database.transact(
        lambda session: generations.cancel(session, gone.id, "default")
    )
    assert cancelled.status is S.CANCELLED
    with bench.database.write() as session:
        leases = [claimed.lease for claimed in batch]
        assert generation_leases.renew(session, leases) == {kept.id}
    with pytest.raises(LeaseLostError), bench.database.write() as session:
        generation_leases.succeed(session, batch[1].lease, [IMAGE])
    assert get(bench, gone.id).images == []
    with pytest.raises(InvalidStateError, match="is cancelled: cancel is refused"):
        bench.database.transact(lambda session: generations.cancel(session, gone.id, "default"))


def test_the_unfinished_of_a_key_are_counted(bench: Bench) -> None:
    key, other = issued_key(bench), issued_key(bench)
    create(bench, api_key_id=other)
    create(bench)
    made = [create(bench, "b", api_key_id=key, priority=1) for _ in range(3)]
    create(bench, "c", api_key_id=key, kind="score")
    assert _count_open(bench, key) == 4
    running, _ = claim(bench, most=2)
    assert _count_open(bench, key) == 4
    bench.database.transact(lambda s: generation_leases.succeed(s, running.lease, [IMAGE]))
    assert _count_open(bench, key) == 3
    bench.database.transact(lambda session: generations.cancel(session, made[2].id, "default"))
    assert (_count_open(bench, key), _count_open(bench, other)) == (2, 1)


def test_a_key_has_no_more_open_generations_than_it_may(bench: Bench, url: URL) -> None:
    key = issued_key(bench)
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
    create(bench, api_key_id=key)
    assert _count_open(bench, key) == 4


def test_without_a_key_there_is_no_quota(bench: Bench) -> None:
    for _ in range(2):
        new = NewGeneration(request={}, batch_key="a")
        bench.database.transact(partial(generations.create, new=new, most_open=1))
    assert len(claim(bench)) == 2


def test_a_finished_generation_is_forgotten_with_its_images(bench: Bench) -> None:
    made = create(bench)
    _remove_refused(bench, made.id)
    (claimed,) = claim(bench)
    _remove_refused(bench, made.id)
    done = bench.database.transact(lambda s: generation_leases.succeed(s, claimed.lease, [IMAGE]))
    (image,) = get(bench, done.id).images
    with pytest.raises(NotFoundError):
        bench.database.transact(lambda s: generations.remove(s, made.id, "theirs"))
    bench.database.transact(lambda s: generations.remove(s, made.id, "default"))
    for look in (
        lambda s: generations.get(s, made.id, "default"),
        lambda s: generations.image(s, image.id, "default"),
        lambda s: generations.remove(s, made.id, "default"),
    ):
        with pytest.raises(NotFoundError):
            bench.database.transact(look)


def _remove_refused(bench: Bench, generation_id: str) -> None:
    with pytest.raises(InvalidStateError) as refused:
        bench.database.transact(lambda s: generations.remove(s, generation_id, "default"))
    assert refused.value.allowed == ("cancel",)
