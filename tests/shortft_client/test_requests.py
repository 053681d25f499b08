"""What is sent, repeated and refused, against a real server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shortft_client import (
    AsyncClient,
    Client,
    NotInTimeError,
    Retries,
    ServiceError,
    UnreachableError,
)
from shortft_client.errors import (
    ConflictError,
    LimitedError,
    NotAllowedError,
    NotThereError,
    RejectedError,
    ServerFaultError,
)
from shortft_core.spec import AlignSpec
from tests.shortft_client.scripted import (
    QUICK,
    Script,
    Scripted,
    answer,
    asking,
    cut,
    in_turn,
    problem,
    serving,
)

SPEC = {
    "base_model": {"name": "shapes"},
    "method": {"type": "draft_k", "updates": 2},
    "rewards": [{"name": "symmetry"}],
    "prompts": {"name": "shapes-train"},
}


def job(**fields: Any) -> dict[str, Any]:
    """A job as the service would describe it."""
    created = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    return {"id": "job_1", "status": "queued", "spec": SPEC, "created_at": created, **fields}


def test_a_job_is_sent_as_it_was_written_and_answers_are_typed() -> None:
    with asking(in_turn(answer(job(hue="blue"), 202))) as (client, seen):
        made = client.jobs.create(AlignSpec.model_validate(SPEC), priority=3)
    (sent,) = seen
    assert (sent.method, sent.path) == ("POST", "/jobs?priority=3")
    assert sent.json() == {"kind": "align", **SPEC}
    assert (made.id, made.is_finished, made.created_at.year) == ("job_1", False, 2026)
    assert made.model_extra == {"hue": "blue"}


def test_a_status_of_a_later_version_is_no_error() -> None:
    with asking(in_turn(answer(job(status="dreaming")))) as (client, _seen):
        found = client.jobs.retrieve("job_1")
    assert (found.status, found.is_finished) == ("dreaming", False)


@pytest.mark.parametrize(
    "trouble",
    [
        cut(),
        problem(503, "unavailable"),
        problem(502, "bad_gateway"),
        problem(429, "rate_limited"),
        problem(409, "idempotency_key_in_flight"),
    ],
)
def test_a_request_is_repeated_under_the_same_key(trouble: Scripted) -> None:
    script = in_turn(trouble, trouble, answer(job(), 202))
    with asking(script) as (client, seen):
        client.jobs.create(SPEC)
    keys = [request.headers["Idempotency-Key"] for request in seen]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32


def test_two_requests_have_two_keys() -> None:
    with asking(in_turn(answer(job(), 202))) as (client, seen):
        client.jobs.create(SPEC)
        client.jobs.create(SPEC)
    first, second = (request.headers["Idempotency-Key"] for request in seen)
    assert first != second


def test_retries_end() -> None:
    with (
        asking(in_turn(problem(503, "unavailable"))) as (client, seen),
        pytest.raises(ServerFaultError) as caught,
    ):
        client.jobs.retrieve("job_1")
    assert caught.value.code == "unavailable"
    assert len(seen) == 1 + QUICK.most


def test_the_wait_that_the_service_asks_for_is_kept() -> None:
    asked = httpx2.Response(429, headers={"Retry-After": "7"}, json={"code": "rate_limited"})
    assert Retries().pause_seconds(1, asked) == 7.0
    far = httpx2.Response(503, headers={"Retry-After": "86400"})
    assert Retries().pause_seconds(1, far) == 60.0
    dated = httpx2.Response(503, headers={"Retry-After": "Fri, 01 Jan 2027 00:00:00 GMT"})
    assert Retries(first_seconds=0.5).wait_seconds(1, dated) <= 0.5


def test_waits_double_are_spread_and_bounded() -> None:
    gone = httpx2.ConnectError("refused")
    waits = [
        Retries(first_seconds=1.0, longest_seconds=8.0).wait_seconds(n, gone) for n in (1, 3, 9)
    ]
    for wait, most in zip(waits, (1.0, 4.0, 8.0), strict=True):
        assert most / 2 <= wait <= most


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", NotAllowedError),
        (403, "forbidden", NotAllowedError),
        (404, "not_found", NotThereError),
        (409, "invalid_state", ConflictError),
        (410, "gone", NotThereError),
        (413, "payload_too_large", RejectedError),
        (422, "invalid_request", RejectedError),
        (429, "quota_exceeded", LimitedError),
        (500, "internal", ServerFaultError),
    ],
)
def test_refusals_that_last_are_raised_at_once(
    status: int, code: str, kind: type[ServiceError]
) -> None:
    more = {"param": "method.rank", "request_id": "req_1", "limit": 5}
    with (
        asking(in_turn(problem(status, code, **more))) as (client, seen),
        pytest.raises(ServiceError) as caught,
    ):
        client.jobs.cancel("job_1")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.param) == (code, "method.rank")
    assert (caught.value.request_id, caught.value.problem["limit"]) == ("req_1", 5)
    assert len(seen) == 1


def test_all_mistakes_are_in_the_message() -> None:
    errors = [
        {"where": "body", "pointer": "/method/rank", "code": "x", "message": "too small"},
        {"where": "body", "pointer": "/seed", "code": "x", "message": "no number"},
    ]
    with (
        asking(in_turn(problem(422, "invalid_request", errors=errors))) as (client, _seen),
        pytest.raises(RejectedError) as caught,
    ):
        client.jobs.create({})
    assert [mistake["pointer"] for mistake in caught.value.mistakes] == ["/method/rank", "/seed"]
    assert "/method/rank: too small\n  /seed: no number" in str(caught.value)


def test_a_page_of_a_proxy_is_an_error_with_its_text() -> None:
    page = Scripted(500, {"Content-Type": "text/html"}, (b"<h1>oops</h1>",))
    with (
        asking(in_turn(page)) as (client, _seen),
        pytest.raises(ServerFaultError, match="oops") as caught,
    ):
        client.jobs.retrieve("job_1")
    assert caught.value.code == ""


@pytest.mark.parametrize("body", [b"<h1>hello</h1>", b"[1, 2]"])
def test_an_answer_that_is_no_object_is_an_error(body: bytes) -> None:
    with (
        asking(in_turn(Scripted(200, {}, (body,)))) as (client, _seen),
        pytest.raises(ServerFaultError, match="the answer is no"),
    ):
        client.jobs.retrieve("job_1")


def test_nobody_there_is_said_with_the_address() -> None:
    with serving(in_turn(cut())) as server:
        pass
    with (
        pytest.raises(UnreachableError, match=server.address),
        Client(server.address, retries=QUICK) as client,
    ):
        client.jobs.retrieve("job_1")


def test_lists_fetch_their_pages_as_they_are_read() -> None:
    def script(request: Any) -> Scripted:
        number = int(request.path.partition("after=job_")[2] or "0")
        ids = [f"job_{number + step}" for step in (1, 2)]
        data = [job(id=one) for one in ids]
        return answer({"data": data, "last_id": ids[-1], "has_more": number < 4})

    with asking(script) as (client, seen):
        found = client.jobs.list(status=["queued", "running"], metadata={"team": "vision"})
        assert next(found).id == "job_1"
        assert len(seen) == 1
        assert [one.id for one in found] == ["job_2", "job_3", "job_4", "job_5", "job_6"]
    assert seen[0].path == "/jobs?status=queued%2Crunning&metadata%5Bteam%5D=vision"
    assert [request.path.partition("after=")[2] for request in seen] == [
        "",
        "job_2",
        "job_4",
    ]


def test_a_job_is_awaited_until_it_ends_or_time_is_over() -> None:
    with asking(in_turn(answer(job()), answer(job(status="failed")))) as (client, seen):
        assert client.jobs.wait("job_1", timeout_seconds=30).status == "failed"
    assert len(seen) == 2
    with (
        asking(in_turn(answer(job()))) as (client, seen),
        pytest.raises(NotInTimeError, match="job_1 is still queued after 0 seconds"),
    ):
        client.jobs.wait("job_1", timeout_seconds=0)


@pytest.mark.parametrize("trouble", [cut(), problem(503, "unavailable"), problem(500, "internal")])
def test_waiting_outlasts_a_restart_longer_than_the_retries(trouble: Scripted) -> None:
    away = [trouble] * (QUICK.most + 1)
    script = (answer(job()), *away, answer(job(status="succeeded")))
    with asking(in_turn(*script)) as (client, seen):
        assert client.jobs.wait("job_1", timeout_seconds=30).status == "succeeded"
    assert len(seen) >= 4

    async def wait(address: str) -> str:
        async with AsyncClient(address, retries=QUICK) as client:
            return (await client.jobs.wait("job_1", timeout_seconds=30)).status

    with serving(in_turn(*script)) as server:
        assert asyncio.run(wait(server.address)) == "succeeded"


@pytest.mark.parametrize(("timeout", "patience"), [(30.0, 0.0), (0.0, 300.0)])
def test_waiting_for_a_silent_service_ends_with_patience_or_time(
    timeout: float, patience: float
) -> None:
    with (
        asking(in_turn(cut()), patience_seconds=patience) as (client, seen),
        pytest.raises(UnreachableError),
    ):
        client.jobs.wait("job_1", timeout_seconds=timeout)
    assert len(seen) == 1 + QUICK.most


def _generating() -> Script:
    pending = {"id": "gen_1", "status": "running", "created_at": "2026-01-01T00:00:00Z"}
    return in_turn(
        answer(pending, 202), answer(pending), answer({**pending, "status": "succeeded"})
    )


def test_images_are_held_for_and_then_polled() -> None:
    with asking(_generating()) as (client, seen):
        made = client.generate(prompt="a", seed=3, timeout_seconds=500)
    assert made.status == "succeeded"
    first, *polls = seen
    assert first.json() == {"prompt": "a", "seed": 3}
    assert first.headers["Prefer"] == "wait=60"
    assert [poll.path for poll in polls] == ["/generations/gen_1"] * 2


def test_awaiting_sends_the_same_requests() -> None:
    async def use(address: str) -> str:
        async with AsyncClient(address, retries=QUICK) as client:
            made = await client.generate(prompt="a", seed=3, timeout_seconds=500)
        return made.status

    with serving(_generating()) as server:
        assert asyncio.run(use(server.address)) == "succeeded"
    assert [request.path for request in server.seen] == ["/generate", *["/generations/gen_1"] * 2]
    with (
        serving(in_turn(cut(), problem(404, "not_found"))) as server,
        pytest.raises(NotThereError),
    ):
        asyncio.run(use(server.address))
    assert len({request.headers["Idempotency-Key"] for request in server.seen}) == 1


def test_lists_are_awaited_page_by_page() -> None:
    async def walk(address: str) -> list[str]:
        async with AsyncClient(address, retries=QUICK) as client:
            return [found.id async for found in client.jobs.list(limit=1)]

    first = answer({"data": [job(id="job_1")], "last_id": "job_1", "has_more": True})
    last = answer({"data": [job(id="job_2")], "last_id": "job_2", "has_more": False})
    with serving(in_turn(first, last)) as server:
        assert asyncio.run(walk(server.address)) == ["job_1", "job_2"]
    assert [request.path for request in server.seen] == [
        "/jobs?limit=1",
        "/jobs?limit=1&after=job_1",
    ]


def test_awaiting_takes_labels_and_filters_by_method() -> None:
    async def use(address: str) -> None:
        async with AsyncClient(address, retries=QUICK) as client:
            await client.generate(prompt="a", metadata={"team": "vision"})
            assert [found.id async for found in client.jobs.list(method="draft_k")] == ["job_1"]

    done = {"id": "gen_1", "status": "succeeded", "created_at": "2026-01-01T00:00:00Z"}
    with serving(in_turn(answer(done), answer({"data": [job()]}))) as server:
        asyncio.run(use(server.address))
    first, second = server.seen
    assert first.json() == {"prompt": "a", "metadata": {"team": "vision"}}
    assert second.path == "/jobs?method=draft_k"


def test_methods_explain_themselves() -> None:
    with asking(in_turn(answer({}))) as (client, _seen):
        assert (client.jobs.create.__doc__ or "").startswith("Queues a job")
        assert (client.jobs.list.__doc__ or "").startswith("The jobs that meet")


def test_the_key_and_the_address_come_from_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from shortft_client.settings import client_settings

    (tmp_path / "key").write_text("sft_one\n")
    with serving(in_turn(answer({"version": "1"}))) as server:
        monkeypatch.setenv("SHORTFT_SERVER", server.address)
        monkeypatch.setenv("SHORTFT_API_KEY_FILE", str(tmp_path / "key"))
        client_settings.cache_clear()
        with (
            Client() as first,
            Client(api_key="sft_two") as second,
            Client(api_key="") as third,
        ):
            for client in (first, second, third):
                client.version()
        monkeypatch.undo()
        client_settings.cache_clear()
    sent = [request.headers["Authorization"] for request in server.seen]
    assert sent == ["Bearer sft_one", "Bearer sft_two", None]


def test_pictures_are_uploaded_with_their_types(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png bytes")
    done = {"id": "gen_1", "status": "succeeded", "created_at": "2026-01-01T00:00:00Z"}
    with asking(in_turn(cut(), answer(done))) as (client, seen):
        client.rewards.score("hps_v2", [tmp_path / "a.png"], prompts=["snow"], source="shapes")
    assert seen[0].body.count(b"png bytes") == 1
    sent = seen[1]
    assert sent.path == "/rewards/hps_v2/score"
    assert b'name="prompt"\r\n\r\nsnow\r\n' in sent.body
    assert b'filename="a.png"\r\nContent-Type: image/png\r\n\r\npng bytes' in sent.body


def test_generated_pictures_are_scored_by_their_ids() -> None:
    done = {"id": "gen_1", "status": "succeeded", "created_at": "2026-01-01T00:00:00Z"}
    with asking(in_turn(answer(done))) as (client, seen):
        client.rewards.score_images("hps_v2", ["img_1", "img_2"], wait_seconds=0)
        client.rewards.score_images("hps_v2", ["img_1"], prompts=["snow"], source="hps_v2.1")
    assert [request.json() for request in seen] == [
        {"image_ids": ["img_1", "img_2"]},
        {"image_ids": ["img_1"], "prompt": "snow", "source": "hps_v2.1"},
    ]
    assert [request.headers["Prefer"] for request in seen] == ["respond-async", "wait=30"]
