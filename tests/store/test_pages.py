from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shortft_core.errors import UserError
from store import jobs
from store.jobs import JobFilter
from store.pages import PageRequest

if TYPE_CHECKING:
    from tests.store.conftest import Bench


def _page(bench: Bench, made: list[str], **request: Any) -> tuple[list[int], bool]:
    with bench.database.read() as session:
        page = jobs.page(session, JobFilter(), PageRequest(**request))
    return [made.index(job.id) for job in page.rows], page.has_more


@pytest.fixture
def made(bench: Bench) -> list[str]:
    return [bench.create().id for _ in range(5)]


def test_pages_follow_each_other_in_both_orders(bench: Bench, made: list[str]) -> None:
    assert _page(bench, made, limit=2) == ([4, 3], True)
    assert _page(bench, made, limit=2, after=made[3]) == ([2, 1], True)
    assert _page(bench, made, limit=2, after=made[1]) == ([0], False)
    assert _page(bench, made, limit=2, order="asc", after=made[1]) == ([2, 3], True)
    assert _page(bench, made) == ([4, 3, 2, 1, 0], False)
    assert _page(bench, made, limit=5) == ([4, 3, 2, 1, 0], False)


def test_a_page_before_a_row_is_the_one_that_ends_there(bench: Bench, made: list[str]) -> None:
    assert _page(bench, made, limit=2, before=made[1]) == ([3, 2], True)
    assert _page(bench, made, limit=2, before=made[3]) == ([4], False)
    assert _page(bench, made, limit=2, order="asc", before=made[3]) == ([1, 2], True)


def test_rows_that_come_and_go_shift_nothing(bench: Bench, made: list[str]) -> None:
    first, _ = _page(bench, made, limit=2)
    bench.database.transact(lambda session: jobs.cancel(session, made[3]))
    bench.database.transact(lambda session: jobs.remove(session, made[3]))
    bench.create()
    rest, _ = _page(bench, made, after=made[3])
    assert first + rest == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("limit", [0, -1, 101])
def test_a_limit_has_bounds(limit: int) -> None:
    with pytest.raises(UserError, match="outside 1 to 100"):
        PageRequest(limit=limit)


def test_two_cursors_are_refused() -> None:
    with pytest.raises(UserError, match="cannot stand beside after"):
        PageRequest(after="job_a", before="job_b")
