"""Answers that mean something else than was asked: each is an error of the client's own."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

import pytest

from shortft_client import AsyncClient, Client, ClientError
from shortft_client.errors import ServerFaultError
from tests.shortft_client.scripted import QUICK, Scripted, answer, asking, in_turn, serving

METHODS: Final = (
    "jobs.retrieve",
    "jobs.list",
    "jobs.events",
    "jobs.logs",
    "jobs.checkpoints",
    "jobs.artifacts",
    "generations.retrieve",
    "rewards.list",
    "adapters.list",
)
PAGE: Final = Scripted(200, {"Content-Type": "text/html"}, (b"<h1>Sign in</h1>",))
unreadable = pytest.mark.parametrize(
    ("other", "said"),
    [
        (PAGE, "the answer is no JSON: <h1>Sign in</h1>"),
        (Scripted(200, {}, (b"\xff\xfe\xfd",)), "the answer is no JSON"),
        (answer([1, 2]), r"the answer is no object: \[1, 2\]"),
        (answer({"detail": "gone"}), r'the answer is no .*Field required\): {"detail": "gone"}'),
        (answer({"data": 7}), "the answer is no "),
        (answer({"data": [7]}), "the answer is no "),
        (answer({"data": [{}]}), "the answer is no "),
    ],
)


def _asked(client: Client | AsyncClient, method: str) -> Any:
    group, verb = method.split(".")
    found = getattr(getattr(client, group), verb)
    return found() if verb == "list" else found("job_1")


@unreadable
def test_an_answer_of_another_meaning_is_an_error_that_says_what_came(
    other: Scripted, said: str
) -> None:
    with asking(in_turn(other)) as (client, seen):
        for method in METHODS:
            with pytest.raises(ServerFaultError, match=said) as caught:
                list(_asked(client, method))
            assert caught.value.status == 200
            assert caught.value.code in {"no_json", "unexpected_answer"}
    assert len(seen) == len(METHODS)


@unreadable
def test_awaiting_raises_the_same(other: Scripted, said: str) -> None:
    async def use(address: str) -> None:
        async with AsyncClient(address, retries=QUICK) as client:
            for method in METHODS:
                asked = _asked(client, method)
                with pytest.raises(ServerFaultError, match=said):
                    await (anext(asked) if method.endswith(".list") else asked)

    with serving(in_turn(other)) as server:
        asyncio.run(use(server.address))
    assert len(server.seen) == len(METHODS)


def test_a_later_page_is_read_as_carefully() -> None:
    first = answer({"data": [{"name": "a"}], "last_id": "a", "has_more": True})
    with asking(in_turn(first, PAGE)) as (client, _seen):
        found = client.models()
        assert next(found).name == "a"
        with pytest.raises(ServerFaultError, match="Sign in"):
            next(found)


def test_broken_compression_is_an_error_of_the_client_too() -> None:
    broken = Scripted(200, {"Content-Encoding": "gzip"}, (b"no gzip",))
    with asking(in_turn(broken)) as (client, seen), pytest.raises(ClientError):
        client.jobs.retrieve("job_1")

    async def use(address: str) -> None:
        async with AsyncClient(address, retries=QUICK) as client:
            await client.jobs.retrieve("job_1")

    with serving(in_turn(broken)) as server, pytest.raises(ClientError):
        asyncio.run(use(server.address))
    assert len(seen) == len(server.seen) == 1 + QUICK.most


def test_mistakes_of_the_caller_stay_what_they_are() -> None:
    with asking(in_turn(PAGE)) as (client, seen):
        with pytest.raises(ValueError, match="not JSON compliant"):
            client.jobs.create({"seed": math.nan})
        with pytest.raises(TypeError, match="iterable"):
            client.jobs.list(status=3)  # type: ignore[arg-type]  # the mistake
    assert seen == []
