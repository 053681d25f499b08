from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL, update
from sqlalchemy.orm import Session

from store import idempotency, jobs
from store.engine import Database
from store.errors import KeyInFlightError, KeyReusedError
from store.idempotency import KeyedRequest, Replay
from store.ids import new_id
from store.jobs import JobFilter, NewJob
from store.models import IdempotencyKey
from store.pages import PageRequest
from tests.store.conftest import at_once

if TYPE_CHECKING:
    from tests.store.conftest import Bench

REQUEST = KeyedRequest(project="default", operation="POST /jobs", key="k", request_sha256="1" * 64)


def _submit(bench: Bench, session: Session, request: KeyedRequest = REQUEST) -> Replay | None:
    """What the HTTP edge does in one transaction."""
    job_id = new_id("job")
    replay = idempotency.claim(session, request, job_id)
    if replay is None:
        jobs.create(session, NewJob(spec=bench.spec, id=job_id))
        idempotency.answer(session, request, 202, {"id": job_id})
    return replay


def _count(bench: Bench) -> int:
    with bench.database.read() as session:
        return len(jobs.page(session, JobFilter(), PageRequest()).rows)


def test_a_repetition_is_answered_and_does_nothing(bench: Bench) -> None:
    assert bench.database.transact(lambda session: _submit(bench, session)) is None
    replay = bench.database.transact(lambda session: _submit(bench, session))
    assert replay is not None
    assert (replay.status, replay.body) == (202, {"id": replay.resource_id})
    assert bench.get(replay.resource_id).id == replay.resource_id
    assert _count(bench) == 1


@pytest.mark.parametrize("field", ["project", "operation", "key"])
def test_a_key_counts_within_its_project_and_operation(bench: Bench, field: str) -> None:
    other = replace(REQUEST, **{field: "other"})
    for request in (REQUEST, other):
        with bench.database.write() as session:
            assert _submit(bench, session, request) is None
    assert _count(bench) == 2


def test_another_body_is_refused(bench: Bench) -> None:
    bench.database.transact(lambda session: _submit(bench, session))
    other = replace(REQUEST, request_sha256="2" * 64)
    with pytest.raises(KeyReusedError):
        bench.database.transact(lambda session: _submit(bench, session, other))
    assert _count(bench) == 1


def test_an_unanswered_request_is_in_flight(bench: Bench) -> None:
    def claim(session: Session) -> Replay | None:
        return idempotency.claim(session, REQUEST, "gen_a")

    assert bench.database.transact(claim) is None
    with pytest.raises(KeyInFlightError):
        bench.database.transact(claim)


def test_a_request_that_failed_leaves_its_key_free(bench: Bench) -> None:
    def fail(session: Session) -> None:
        _submit(bench, session)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        bench.database.transact(fail)
    assert bench.database.transact(lambda session: _submit(bench, session)) is None


def test_a_day_later_the_key_is_new(bench: Bench) -> None:
    bench.database.transact(lambda session: _submit(bench, session))
    past = datetime.now(tz=UTC) - timedelta(seconds=1)
    with bench.database.write() as session:
        session.execute(update(IdempotencyKey).values(expires_at=past))
    assert bench.database.transact(lambda session: _submit(bench, session)) is None
    assert _count(bench) == 2
    with bench.database.write() as session:
        assert idempotency.purge(session) == 0
        session.execute(update(IdempotencyKey).values(expires_at=past))
    assert bench.database.transact(idempotency.purge) == 1


def test_of_many_at_once_one_does_the_work(bench: Bench, url: URL) -> None:
    answers: list[Replay | None] = []

    def submit(database: Database) -> None:
        answers.append(database.transact(lambda session: _submit(bench, session)))

    at_once(url, submit)
    assert answers.count(None) == 1
    assert len({answer.resource_id for answer in answers if answer}) == 1
    assert len(answers) == 6
    assert _count(bench) == 1
