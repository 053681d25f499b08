"""The statements that run all the time read an index, not the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, insert, text
from sqlalchemy.orm import Session

from store import generation_leases, generations, jobs, leases, measurements, results
from store.generations import NewGeneration
from store.ids import new_id
from store.jobs import JobFilter
from store.models import Generation, Job
from store.pages import PageRequest

if TYPE_CHECKING:
    from tests.store.conftest import Bench

ROWS = 2000
Steps = Callable[[Session], Any]


def _fill(bench: Bench, table: type[Job | Generation], row: Job | Generation) -> None:
    """A queue that is long enough for an index to be worth it."""
    names = [column.key for column in table.__mapper__.column_attrs]
    values = {name: getattr(row, name) for name in names}
    with bench.database.write() as session:
        session.execute(insert(table), [{**values, "id": new_id("job")} for _ in range(ROWS)])
        # Nobody runs it for SQLite, whose planner has to find the index without figures.
        if bench.database.engine.dialect.name == "postgresql":
            session.execute(text("ANALYZE"))


def _plans(bench: Bench, steps: Steps) -> list[str]:
    """Each statement of `steps`, and how the database would run it."""
    seen: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if "PRAGMA" not in statement and "BEGIN" not in statement:
            seen.append((statement, parameters))

    engine = bench.database.engine
    event.listen(engine, "before_cursor_execute", note)
    with bench.database.write() as session:
        steps(session)
    event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with bench.database.write() as session:
        run = session.connection().exec_driver_sql
        return [
            f"{statement} {run(f'{explain} {statement}', values).all()}"
            for statement, values in seen
        ]


def test_jobs(bench: Bench) -> None:
    _fill(bench, Job, bench.create())
    wanted: list[tuple[str, Steps]] = [
        ("ix_jobs_queue", lambda session: leases.claim(session, "wrk_a", ["default"])),
        ("ix_jobs_queue", leases.unwoken),
        ("ix_jobs_leases", leases.sweep),
    ]
    for index, steps in wanted:
        plans = "\n".join(_plans(bench, steps))
        assert index in plans
        assert "Seq Scan on jobs" not in plans
        # As a parameter it would hide the partial index from a plan that is kept.
        assert ("jobs.status = 'queued'" in plans) == index.endswith("_queue")


def test_generations(bench: Bench) -> None:
    new = NewGeneration(request={}, batch_key="a")
    row = bench.database.transact(lambda session: generations.create(session, new))
    _fill(bench, Generation, row)
    wanted: list[tuple[str, Steps]] = [
        ("ix_generations_queue", lambda s: generation_leases.claim_batch(s, "wrk_a", most=4)),
        ("ix_generations_leases", generation_leases.sweep),
    ]
    for index, steps in wanted:
        plans = "\n".join(_plans(bench, steps))
        assert index in plans
        assert "Seq Scan on generations" not in plans
        # As a parameter it would hide the partial index from a plan that is kept.
        assert ("generations.status = 'queued'" in plans) == index.endswith("_queue")


def test_the_turn_of_a_new_generation(bench: Bench) -> None:
    new = NewGeneration(request={}, batch_key="a")
    row = bench.database.transact(lambda session: generations.create(session, new))
    _fill(bench, Generation, row)
    looks = [
        plan
        for plan in _plans(bench, lambda session: generations.create(session, _again(new)))
        if plan.startswith("SELECT generations.turn")
    ]
    assert len(looks) == 2
    assert "ix_generations_turns" in looks[0] + looks[1]
    assert "ix_generations_queue" in looks[0] + looks[1]
    for plan in looks:
        assert "Seq Scan" not in plan
        assert "TEMP B-TREE" not in plan


def _again(new: NewGeneration) -> NewGeneration:
    return replace(new, id=new_id("gen"))


def test_measurements(bench: Bench) -> None:
    bench.create()
    lease = bench.claim().lease
    bench.database.transact(lambda session: results.succeed(session, lease, []))
    _fill(bench, Job, bench.get(lease.row_id))
    plans = _plans(bench, lambda session: measurements.measured(session, bench.spec, "cpu"))
    assert "ix_jobs_measured" in plans[0]
    assert "Sort" not in plans[0]
    assert "TEMP B-TREE" not in plans[0]


def test_a_page_of_jobs_is_not_sorted(bench: Bench) -> None:
    _fill(bench, Job, bench.create())
    request = PageRequest(limit=5)
    first, *_ = _plans(bench, lambda session: jobs.page(session, JobFilter(), request))
    assert "Index" in first or "INDEX" in first
    assert "Sort" not in first
    assert "TEMP B-TREE" not in first
