from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL

from shortft_core.events import (
    EvaluationDone,
    LogLine,
    PhaseStarted,
    StepMetrics,
    from_envelope,
    to_envelope,
)
from store import events
from store.engine import open_database
from store.transitions import Lease

if TYPE_CHECKING:
    from tests.store.conftest import Bench

METRICS = StepMetrics(
    update=2,
    loss=float("inf"),
    reward=0.5,
    terms={"symmetry": -0.25},
    grad_norms={1: 0.1},
    learning_rate=1e-3,
    seconds=0.5,
    evaluations_with_gradient=1.0,
    evaluations_without_gradient=49.0,
    images_seen=8,
)


def _append(bench: Bench, lease: Lease, *messages: str) -> tuple[int, ...]:
    lines = [LogLine(message=message) for message in messages]
    return bench.database.transact(lambda session: events.append(session, lease, lines))


def test_numbers_go_on_where_they_were(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    assert _append(bench, lease, "a", "b") == (3, 4)
    assert _append(bench, lease) == ()
    assert _append(bench, lease, "c") == (5,)
    assert bench.types(job.id) == ["job.created", "job.preparing", *["job.log"] * 3]


def test_a_reader_gets_what_it_lacks(bench: Bench) -> None:
    job = bench.create()
    _append(bench, bench.claim().lease, "a", "b", "c")
    with bench.database.read() as session:
        assert [row.seq for row in events.after(session, job.id, 2)] == [3, 4, 5]
        assert [row.seq for row in events.after(session, job.id, 2, limit=1)] == [3]
        assert events.after(session, job.id, 5) == ()
        assert events.after(session, "job_other") == ()
        logs = events.after(session, job.id, types=["job.log"])
    assert [row.message for row in logs] == ["a", "b", "c"]


def test_the_envelope_is_the_cores_with_three_more_fields(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    with bench.database.write() as session:
        events.append(session, lease, [METRICS])
    with bench.database.read() as session:
        row = events.after(session, job.id)[-1]
    envelope = events.envelope(row)
    assert from_envelope(envelope) == METRICS
    added = {name: envelope.pop(name) for name in ("id", "seq", "job_id")}
    assert added == {"id": row.id, "seq": 3, "job_id": job.id}
    ours, theirs = envelope.pop("created_at"), to_envelope(METRICS).pop("created_at")
    assert datetime.fromisoformat(ours) == datetime.fromisoformat(theirs)
    assert ours.endswith("Z")
    assert envelope == {
        name: value for name, value in to_envelope(METRICS).items() if name != "created_at"
    }


def test_events_move_the_progress_of_the_job(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    best = EvaluationDone(update=2, images=1, base={}, tuned={}, is_best=True)
    worse = EvaluationDone(update=3, images=1, base={}, tuned={})
    with bench.database.write() as session:
        phase = PhaseStarted(phase="train")
        events.append(session, lease, [phase, METRICS, best, worse])
    found = bench.get(job.id)
    assert (found.phase, found.updates_completed, found.best_update) == ("train", 2, 2)
    assert found.latest_metrics is not None
    assert found.latest_metrics["terms"] == {"symmetry": -0.25}
    assert found.latest_metrics["loss"] == "Infinity"


def test_the_time_is_the_reporters(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    time = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with bench.database.write() as session:
        events.append(session, lease, [LogLine(message="a", created_at=time)])
    with bench.database.read() as session:
        assert events.after(session, job.id)[-1].created_at == time


def test_numbers_become_visible_in_their_order(bench: Bench, url: URL) -> None:
    """Four writers of one job and a reader: it sees every number, each once, in order."""
    job = bench.create()
    lease = bench.claim().lease
    done = threading.Event()
    seen: list[int] = []

    def write() -> None:
        database = open_database(url)
        for _ in range(15):
            database.transact(lambda session: events.append(session, lease, [LogLine()]))
        database.close()

    def read() -> None:
        database = open_database(url)
        while True:
            is_last_look = done.is_set()
            with database.read() as session:
                rows = events.after(session, job.id, seen[-1] if seen else 0, limit=7)
            seen.extend(row.seq for row in rows)
            if is_last_look and not rows:
                break
        database.close()

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert seen == list(range(1, 63))


@pytest.mark.parametrize("text", ["a\0b", "ü€😀"])
def test_any_message_is_stored(bench: Bench, text: str) -> None:
    job = bench.create()
    _append(bench, bench.claim().lease, text)
    with bench.database.read() as session:
        message = events.after(session, job.id)[-1].message
    assert message == text.replace("\0", "\ufffd")
