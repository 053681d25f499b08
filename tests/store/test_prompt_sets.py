from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import InvalidRequestError

from shortft_core.errors import UserError
from shortft_core.prompts import PromptSet, parse
from store import prompt_sets
from store.errors import NotFoundError
from store.models import PromptSetRow
from store.pages import PageRequest

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
    with pytest.raises(UserError, match="there is a prompt set 'stars'"):
        _create(bench)
    bench.database.transact(lambda s: prompt_sets.create(s, "theirs", "stars", PROMPTS))


def test_a_removed_set_is_gone_and_others_sets_are_not_seen(bench: Bench) -> None:
    row = _create(bench)
    with pytest.raises(NotFoundError):
        bench.database.transact(lambda s: prompt_sets.remove(s, row.id, "theirs"))
    bench.database.transact(lambda s: prompt_sets.remove(s, row.id, "default"))
    with bench.database.read() as session, pytest.raises(NotFoundError, match="prompt set ps_"):
        prompt_sets.load(session, row.id, "default")
