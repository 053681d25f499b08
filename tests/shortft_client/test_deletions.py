"""What is removed once stays removed, whichever of its answers arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
import pytest

from shortft_client import AsyncClient, Client
from shortft_client.errors import NotThereError
from shortft_client.retries import may_be_done
from tests.shortft_client.scripted import QUICK, Script, Scripted, cut, in_turn, problem, serving


def _job(address: str) -> None:
    with Client(address, retries=QUICK) as client:
        client.jobs.delete("job_1")


def _prompt_set(address: str) -> None:
    with Client(address, retries=QUICK) as client:
        client.prompt_sets.delete("job_1")


def _generation(address: str) -> None:
    with Client(address, retries=QUICK) as client:
        client.generations.delete("job_1")


def _awaited_job(address: str) -> None:
    async def delete() -> None:
        async with AsyncClient(address, retries=QUICK) as client:
            await client.jobs.delete("job_1")

    asyncio.run(delete())


def _awaited_generation(address: str) -> None:
    async def delete() -> None:
        async with AsyncClient(address, retries=QUICK) as client:
            await client.generations.delete("job_1")

    asyncio.run(delete())


def _awaited_prompt_set(address: str) -> None:
    async def delete() -> None:
        async with AsyncClient(address, retries=QUICK) as client:
            await client.prompt_sets.delete("job_1")

    asyncio.run(delete())


GONE = problem(404, "not_found")
deletions = pytest.mark.parametrize(
    "delete",
    [_job, _prompt_set, _generation, _awaited_job, _awaited_prompt_set, _awaited_generation],
)


def _forgetting(*troubles: Scripted) -> Script:
    """Each answer is lost in its way; the thing is gone after the first request."""
    return in_turn(*troubles, GONE)


@deletions
@pytest.mark.parametrize(
    "troubles",
    [
        (cut(),),
        (problem(502, "bad_gateway"),),
        (problem(504, "gateway_timeout"),),
        (cut(), problem(503, "unavailable")),
    ],
)
def test_what_is_gone_after_a_lost_answer_was_deleted(
    delete: Callable[[str], None], troubles: tuple[Scripted, ...]
) -> None:
    with serving(_forgetting(*troubles)) as server:
        delete(server.address)
    assert [request.method for request in server.seen] == ["DELETE"] * (len(troubles) + 1)


@deletions
@pytest.mark.parametrize("troubles", [(), (problem(503, "unavailable"),)])
def test_what_was_never_there_is_an_error(
    delete: Callable[[str], None], troubles: tuple[Scripted, ...]
) -> None:
    with serving(_forgetting(*troubles)) as server, pytest.raises(NotThereError):
        delete(server.address)
    assert len(server.seen) == len(troubles) + 1


def test_only_deletions_are_done_by_what_is_gone() -> None:
    with (
        serving(_forgetting(cut())) as server,
        Client(server.address, retries=QUICK) as client,
        pytest.raises(NotThereError),
    ):
        client.jobs.cancel("job_1")


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (httpx2.ReadTimeout("late"), True),
        (httpx2.RemoteProtocolError("closed"), True),
        (httpx2.DecodingError("no gzip"), True),
        (httpx2.ConnectError("refused"), False),
        (httpx2.ConnectTimeout("nobody"), False),
        (httpx2.Response(429), False),
    ],
)
def test_a_request_that_never_left_has_done_nothing(
    outcome: httpx2.Response | httpx2.RequestError, *, expected: bool
) -> None:
    assert may_be_done(outcome) is expected
