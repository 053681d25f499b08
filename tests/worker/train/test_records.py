"""What an attempt writes, where the connection breaks between a commit and its answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from shortft_core.events import CheckpointSaved, PhaseStarted
from store import events, logs, results
from store.leases import Claim, claim
from tests.faults.harness import Service
from worker.train.records import Records


@pytest.fixture
def claimed(running: Service) -> Claim:
    """A job in the hands of this test."""
    running.create(updates=1)
    found = running.database.transact(lambda session: claim(session, "wrk_a", ["default"]))
    assert found is not None
    return found


@pytest.fixture
def records(running: Service, claimed: Claim) -> Records:
    """They wait for the database for ever."""
    return Records(running.database, claimed.lease, lambda: False)


@contextmanager
def lost(hook: str) -> Iterator[list[str]]:
    """The connection breaks once, `before_commit` or `after_commit`; yields the breaks."""
    broken: list[str] = []

    def breaks(session: Session) -> None:
        # A transaction that only reads is repeated anyway.
        if not broken and session.bind is not None and not session.bind.get_execution_options():
            broken.append(hook)
            raise OperationalError("COMMIT", {}, OSError("gone"), connection_invalidated=True)

    event.listen(Session, hook, breaks)
    try:
        yield broken
    finally:
        event.remove(Session, hook, breaks)


def _history(running: Service, job_id: str) -> tuple[list[str], list[str]]:
    with running.database.read() as session:
        lines = [line.text for line in logs.after(session, job_id)]
        return [entry.type for entry in events.after(session, job_id)], lines


@pytest.mark.parametrize("hook", ["before_commit", "after_commit"])
def test_what_was_noted_is_written_once(
    running: Service, claimed: Claim, records: Records, hook: str
) -> None:
    before, _ = _history(running, claimed.job.id)
    noted = PhaseStarted(phase="train")
    with lost(hook) as broken:
        records.note(noted)
        records.note_lines(["a", "b"])
        records.flush()
        records.note_lines(["c"])
        records.flush()
    assert broken == [hook]
    types, lines = _history(running, claimed.job.id)
    assert types[len(before) :] == [noted.type]
    assert lines == ["a", "b", "c"]


def test_a_checkpoint_is_recorded_once_and_its_answer_is_given(
    running: Service, claimed: Claim, records: Records
) -> None:
    saved = CheckpointSaved(update=1, key="checkpoints/1/state", sha256="0" * 64, size_bytes=1)
    with lost("after_commit") as broken:
        row = records.write(lambda session, lease: results.add_checkpoint(session, lease, saved))
    assert broken == ["after_commit"]
    assert row.update == 1
    with running.database.read() as session:
        assert [found.id for found in results.checkpoints(session, claimed.job.id)] == [row.id]
    types, _ = _history(running, claimed.job.id)
    assert types.count(saved.type) == 1
