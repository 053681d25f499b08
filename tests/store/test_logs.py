from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from store import leases, logs
from store.attempts import Ending
from store.errors import LeaseLostError
from store.models import Job

if TYPE_CHECKING:
    from store.transitions import Lease
    from tests.store.conftest import Bench


def _append(bench: Bench, lease: Lease, *lines: str) -> int:
    return bench.database.transact(lambda session: logs.append(session, lease, lines))


def _after(bench: Bench, job_id: str, number: int = 0, limit: int = 500) -> list[tuple[int, str]]:
    with bench.database.read() as session:
        found = logs.after(session, job_id, number, limit=limit)
    return [(line.number, line.text) for line in found]


def test_lines_are_numbered_over_attempts(bench: Bench) -> None:
    job = bench.create()
    first = bench.claim().lease
    assert _append(bench, first, "a", "b") == 2
    assert _append(bench, first) == 2
    bench.database.transact(lambda session: leases.release(session, first, Ending.CRASHED))
    bench.set(Job, job.id, run_after=job.created_at)
    second = bench.claim().lease
    assert _append(bench, second, "c") == 3
    assert _after(bench, job.id) == [(1, "a"), (2, "b"), (3, "c")]
    assert _after(bench, job.id, 1, limit=1) == [(2, "b")]
    with bench.database.read() as session:
        found = logs.tail(session, job.id, 2)
    assert [(line.text, line.attempt) for line in found] == [("b", 1), ("c", 2)]


def test_whoever_lost_the_lease_writes_no_line(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    _append(bench, lease, "a")
    bench.expire(Job, job.id)
    bench.database.transact(leases.sweep)
    with pytest.raises(LeaseLostError):
        _append(bench, lease, "b")
    assert _after(bench, job.id) == [(1, "a")]


def test_the_newest_lines_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_LINES", 3)
    job, other = bench.create(), bench.create()
    lease, others = bench.claim().lease, bench.claim().lease
    _append(bench, others, "x")
    _append(bench, lease, "a", "b", "c")
    _append(bench, lease, "d")
    assert _after(bench, job.id) == [(2, "b"), (3, "c"), (4, "d")]
    _append(bench, lease, *"efghi")
    assert _after(bench, job.id) == [(7, "g"), (8, "h"), (9, "i")]
    assert _after(bench, other.id) == [(1, "x")]


def test_lines_of_any_origin_are_kept_within_bounds(bench: Bench) -> None:
    job = bench.create()
    _append(bench, bench.claim().lease, "a\0\udc80b", "x" * 5000)
    (_, odd), (_, long) = _after(bench, job.id)
    assert odd == "a\ufffd\ufffdb"
    assert len(long) == logs.LONGEST_LINE


def test_lines_go_with_their_job(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim().lease
    _append(bench, lease, "a")
    with bench.database.write() as session:
        session.delete(session.get_one(Job, job.id))
    assert _after(bench, job.id) == []
