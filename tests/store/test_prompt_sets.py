from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import InvalidRequestError

from shortft_core.prompts import PromptSet, parse
from shortft_core.spec import PromptSource
from store import jobs, prompt_sets
from store.errors import InUseError, NameTakenError, NotFoundError
from store.models import PromptSetRow
from store.pages import PageRequest
from tests.store.conftest import SPEC

if TYPE_CHECKING:
    from tests.store.conftest import Bench

PROMPTS = parse("a red star\nein grüner Stern ★\n".encode(), "lines", field="prompts")


def _create(bench: Bench, name: str = "stars", prompts: PromptSet = PROMPTS) -> PromptSetRow:
    return bench.database.transact(
        lambda session: prompt_sets.create(session, "default", name, prompts)
    )


def test_a_set_is_read_back_as_it_was_uploaded(bench: Bench) -> None:
    row = _create(bench)
    assert (row.count, row.sha256) == (2, PROMPTS.sha256)
    assert row.size_bytes == len("a red star") + len("ein grüner Stern ★".encode())
    with bench.database.read() as session:
        assert prompt_sets.load(session, row.id, "default") == PROMPTS


def test_a_list_does_not_fetch_the_prompts(bench: Bench) -> None:
    row = _create(bench)
    with bench.database.read() as session:
        page = prompt_sets.page(session, "default", PageRequest())
        assert [found.id for found in page.rows] == [row.id]
        with pytest.raises(InvalidRequestError, match="raiseload"):
            _ = page.rows[0].prompts


def test_a_name_is_taken_once_per_project(bench: Bench) -> None:
    _create(bench)
    with pytest.raises(NameTakenError, match="there is a prompt set 'stars'"):
        _create(bench)
    bench.database.transact(lambda s: prompt_sets.create(s, "theirs", "stars", PROMPTS))


def test_a_removed_set_is_gone_and_others_sets_are_not_seen(bench: Bench) -> None:
    row = _create(bench)
    with pytest.raises(NotFoundError):
        bench.database.transact(lambda s: prompt_sets.remove(s, row.id, "theirs"))
    bench.database.transact(lambda s: prompt_sets.remove(s, row.id, "default"))
    with bench.database.read() as session, pytest.raises(NotFoundError, match="prompt set ps_"):
        prompt_sets.load(session, row.id, "default")


def test_a_deletion_waits_for_the_job_that_is_being_made(bench: Bench) -> None:
    """Whoever holds the set comes first: the deletion sees the job, or there is none."""
    row = _create(bench)
    spec = SPEC.model_copy(update={"prompts": PromptSource(id=row.id)})
    held, outcome = threading.Event(), []

    def delete() -> None:
        held.wait(timeout=20)
        try:
            bench.database.transact(lambda s: prompt_sets.remove(s, row.id, "default"))
        except InUseError as error:
            outcome.append(error.job_id)

    deletion = threading.Thread(target=delete)
    deletion.start()
    with bench.database.write() as session:
        prompt_sets.hold(session, row.id, "default")
        held.set()
        deletion.join(timeout=0.5)
        assert deletion.is_alive(), "it waits for this transaction"
        job = jobs.create(session, jobs.NewJob(spec=spec))
    deletion.join(timeout=20)
    assert outcome == [job.id]
    with bench.database.write() as session:
        prompt_sets.hold(session, row.id, "default")
        with pytest.raises(NotFoundError):
            prompt_sets.hold(session, row.id, "theirs")
