from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from store import workers
from store.errors import NotFoundError
from store.models import Worker
from store.workers import NewWorker

if TYPE_CHECKING:
    from tests.store.conftest import Bench


def _register(bench: Bench, **fields: Any) -> Worker:
    known: dict[str, Any] = {
        "kind": "train",
        "host": "a",
        "pid": 1,
        "slots": 1,
        "device": "cpu",
        "version": "0",
    }
    new = NewWorker(**(known | fields))
    return bench.database.transact(lambda session: workers.register(session, new))


def _silence(bench: Bench, worker_id: str, age: timedelta) -> None:
    with bench.database.write() as session:
        session.execute(
            update(Worker)
            .where(Worker.id == worker_id)
            .values(heartbeat_at=datetime.now(tz=UTC) - age)
        )


def _alive(bench: Bench) -> list[tuple[str, str]]:
    with bench.database.read() as session:
        return [(worker.id, worker.state) for worker in workers.alive(session)]


def test_a_worker_is_alive_while_it_beats(bench: Bench) -> None:
    first, second = _register(bench), _register(bench, kind="generate")
    third = _register(bench, kind="default")
    bench.database.transact(lambda session: workers.beat(session, third.id, "stopped"))
    assert _alive(bench) == [(first.id, "ready"), (second.id, "ready")]
    _silence(bench, first.id, timedelta(seconds=46))
    assert _alive(bench) == [(second.id, "ready")]
    bench.database.transact(lambda session: workers.beat(session, first.id, "busy"))
    bench.database.transact(lambda session: workers.beat(session, second.id, "stopped"))
    assert _alive(bench) == [(first.id, "busy")]


def test_a_worker_that_is_long_gone_is_forgotten_and_told_so(bench: Bench) -> None:
    gone, there = _register(bench), _register(bench)
    _silence(bench, gone.id, timedelta(days=2))
    assert bench.database.transact(workers.forget_silent) == 1
    with pytest.raises(NotFoundError, match=gone.id):
        bench.database.transact(lambda session: workers.beat(session, gone.id, "ready"))
    assert _alive(bench) == [(there.id, "ready")]
