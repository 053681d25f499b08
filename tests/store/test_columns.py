from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError, InvalidRequestError, StatementError

from store import workers
from store.models import Base, Generation, Job

if TYPE_CHECKING:
    from tests.store.conftest import Bench

ONE_DATABASE = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TIMES = st.builds(
    lambda seconds, zone: datetime.fromtimestamp(seconds, tz=zone),
    st.floats(0, 7e9),
    st.timezones(),
)


@ONE_DATABASE
@given(time=TIMES)
def test_any_zone_is_read_back_as_the_same_instant_in_utc(bench: Bench, time: datetime) -> None:
    job = bench.create()
    bench.set(Job, job.id, run_after=time)
    found = bench.get(job.id).run_after
    assert found == time
    assert found.utcoffset() == timedelta(0)


def test_times_compare_as_instants_not_as_text(bench: Bench) -> None:
    job = bench.create()
    early_but_written_late = datetime(2000, 1, 1, 13, tzinfo=timezone(timedelta(hours=14)))
    bench.set(Job, job.id, run_after=early_but_written_late)
    with bench.database.read() as session:
        noon = datetime(2000, 1, 1, 12, tzinfo=UTC)
        assert session.query(Job.id).where(Job.run_after < noon).all() == [(job.id,)]


def test_a_naive_time_is_refused(bench: Bench) -> None:
    job = bench.create()
    with pytest.raises(StatementError, match="has no time zone"):
        bench.set(Job, job.id, run_after=datetime(2026, 1, 1))  # noqa: DTZ001


@ONE_DATABASE
@given(text=st.text(st.characters(exclude_categories=[]), max_size=30))
def test_any_text_can_be_logged(bench: Bench, text: str) -> None:
    job = bench.create()
    bench.set(Job, job.id, log_tail=text)
    found = bench.get(job.id).log_tail
    assert found is not None
    assert len(found) == len(text)
    for ours, theirs in zip(found, text, strict=True):
        assert ours == ("\ufffd" if theirs == "\0" or "\ud800" <= theirs <= "\udfff" else theirs)


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"status": "running"}, "ck_jobs_"),
        ({"lease_owner": "wrk_a"}, "ck_jobs_owner"),
        ({"finished_at": datetime(2026, 1, 1, tzinfo=UTC)}, "ck_jobs_finished"),
        ({"parent_id": "job_nobody"}, "(?i)foreign key"),
    ],
)
def test_the_database_itself_refuses_an_impossible_job(
    bench: Bench, values: dict[str, object], constraint: str
) -> None:
    job = bench.create()
    with pytest.raises(IntegrityError, match=constraint):
        bench.set(Job, job.id, **values)


def test_an_unknown_status_is_refused(bench: Bench) -> None:
    job = bench.create()
    with pytest.raises(StatementError, match="sleeping"):
        bench.set(Job, job.id, status="sleeping")


def test_a_relation_that_was_not_asked_for_is_not_fetched_silently(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = bench.create().artifacts


def test_every_constraint_has_a_name() -> None:
    for table in Base.metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints), table.name
        assert all(index.name for index in table.indexes), table.name


def test_both_kinds_of_work_have_the_same_lease_columns() -> None:
    for name in ("lease_token", "lease_expires_at", "attempt", "crashes", "lost_leases"):
        assert repr(inspect(Job).columns[name].type) == repr(inspect(Generation).columns[name].type)


def test_an_unknown_kind_of_worker_is_refused(bench: Bench) -> None:
    odd = workers.NewWorker(
        kind="typing",  # type: ignore[arg-type]
        host="a",
        pid=1,
        slots=1,
        device="cpu",
        version="0",
    )
    with pytest.raises(IntegrityError, match="ck_workers_kind"):
        bench.database.transact(lambda session: workers.register(session, odd))
