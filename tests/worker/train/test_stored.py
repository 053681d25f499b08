"""What attempts leave in the store: whatever one writes, the rows of another stay true."""

from __future__ import annotations

from pathlib import Path

import pytest

from store import results
from store.errors import LeaseLostError
from store.objects import StoredObject
from tests.faults import invariants
from tests.faults.harness import Service
from tests.worker.train.test_restore import Bench, claim_next


@pytest.fixture
def bench(running: Service) -> Bench:
    running.create(updates=100)
    return Bench(running, claim_next(running))


def pictures(bench: Bench) -> dict[tuple[int, str], str]:
    """Update and kind -> the bytes that the row's key leads to."""
    with bench.running.database.read() as session:
        rows = results.samples(session, bench.claimed.job.id)
    read = bench.running.objects.read
    return {(row.update, row.kind): read(row.object_key).decode() for row in rows}


def test_another_gpu_draws_other_base_pictures(bench: Bench) -> None:
    bench.evaluate(5, "one")
    bench.evaluate(10, "one")
    later = bench.succeed_by_another()
    later.evaluate(15, "the other one")
    invariants.check(bench.running, bench.claimed.job.id)
    bases = {update: text for (update, kind), text in pictures(bench).items() if kind == "base"}
    assert bases == {5: "one", 10: "one", 15: "the other one"}


def test_a_lost_attempt_that_still_stores_tears_no_row(bench: Bench) -> None:
    """It was frozen behind its evaluation, and does not know yet."""
    later = bench.succeed_by_another()
    later.evaluate(5, "the other one")
    with pytest.raises(LeaseLostError):
        bench.storage.samples(bench.draw(5, "one"))
    invariants.check(bench.running, bench.claimed.job.id)
    assert pictures(bench) == {
        (5, "base"): "the other one",
        (5, "tuned"): "the other one, tuned at 5",
    }


def test_the_base_pictures_of_an_attempt_are_stored_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = bench.running.objects.write_file

    def write_file(key: str, source: Path) -> StoredObject:
        written.append(key.partition("/samples/")[2])
        return real(key, source)

    monkeypatch.setattr(bench.running.objects, "write_file", write_file)
    bench.evaluate(5, "one")
    bench.evaluate(10, "one")
    assert written == ["t1/base/000.png", "t1/000005/000.png", "t1/000010/000.png"]
