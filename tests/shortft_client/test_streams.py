"""Event streams and downloads over connections that break."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shortft_client import Artifact, AsyncClient, Client, UnreachableError
from shortft_client.errors import NotThereError, ServerFaultError
from shortft_client.following import SILENCE_SECONDS, Following
from shortft_core.errors import ArtifactError
from shortft_core.events import PhaseStarted, to_envelope
from tests.shortft_client.scripted import (
    CUT,
    QUICK,
    Script,
    Scripted,
    Seen,
    asking,
    cut,
    in_turn,
    problem,
    serving,
)

DATA = bytes(range(256)) * 40


def frame(seq: int) -> bytes:
    """One event on the wire."""
    event = to_envelope(PhaseStarted(phase=f"phase {seq}"))
    envelope = {**event, "id": f"evt_{seq}", "seq": seq, "job_id": "job_1"}
    return f"id: {seq}\nevent: job.phase\ndata: {json.dumps(envelope)}\n\n".encode()


def stream(*chunks: bytes) -> Scripted:
    """An event stream whose end is the end of the connection."""
    start = b": ok\nretry: 10\n\n"
    return Scripted(200, {"Content-Type": "text/event-stream"}, (start, *chunks), length=-1)


DONE = b'event: done\ndata: {"status": "succeeded"}\n\n'
TROUBLES: tuple[Scripted, ...] = (
    stream(frame(1), frame(2), frame(3)[:40]),
    cut(),
    problem(503, "unavailable"),
    stream(frame(2), frame(3)),
    stream(b": ping\n\n", CUT),
    stream(frame(4), frame(5), DONE),
)


def test_no_event_is_lost_or_doubled_over_broken_connections() -> None:
    with asking(in_turn(*TROUBLES)) as (client, seen):
        events = list(client.jobs.stream("job_1"))
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    asked = [request.headers["Last-Event-ID"] for request in seen]
    assert asked == ["0", "2", "2", "2", "3", "3"]
    assert {request.path for request in seen} == {"/jobs/job_1/events/stream"}
    typed = [event.event for event in events]
    assert [event.phase for event in typed if isinstance(event, PhaseStarted)] == [
        f"phase {seq}" for seq in (1, 2, 3, 4, 5)
    ]


def test_awaiting_follows_the_same_way() -> None:
    async def follow(address: str) -> list[int]:
        async with AsyncClient(address, retries=QUICK) as client:
            return [event.seq async for event in client.jobs.stream("job_1", after=1)]

    with serving(in_turn(*TROUBLES)) as server:
        assert asyncio.run(follow(server.address)) == [2, 3, 4, 5]
    assert server.seen[0].headers["Last-Event-ID"] == "1"


def test_an_event_of_a_later_version_keeps_its_data() -> None:
    envelope = {"id": "evt_1", "seq": 1, "type": "job.dreamt", "job_id": "job_1", "data": {"n": 1}}
    envelope["created_at"] = "2026-01-01T00:00:00Z"
    chunk = f"id: 1\nevent: job.dreamt\ndata: {json.dumps(envelope)}\n\n".encode()
    with asking(in_turn(stream(chunk, DONE))) as (client, _seen):
        (event,) = client.jobs.stream("job_1")
    assert event.event is None
    assert (event.type, event.data) == ("job.dreamt", {"n": 1})


def test_a_refusal_that_lasts_ends_the_stream() -> None:
    with asking(in_turn(stream(frame(1)), problem(404, "not_found"))) as (client, seen):
        events = client.jobs.stream("job_1")
        assert next(events).seq == 1
        with pytest.raises(NotThereError):
            next(events)
    assert len(seen) == 2


def test_patience_ends() -> None:
    with asking(in_turn(stream(frame(1)), cut()), patience_seconds=0.2) as (client, seen):
        events = client.jobs.stream("job_1")
        assert next(events).seq == 1
        with pytest.raises(UnreachableError):
            next(events)
    assert len(seen) > 3


def _waited(address: str, patience_seconds: float) -> list[int]:
    with Client(address, retries=QUICK, patience_seconds=patience_seconds) as client:
        return [event.seq for event in client.jobs.stream("job_1")]


def _awaited(address: str, patience_seconds: float) -> list[int]:
    async def follow() -> list[int]:
        async with AsyncClient(address, retries=QUICK, patience_seconds=patience_seconds) as client:
            return [event.seq async for event in client.jobs.stream("job_1")]

    return asyncio.run(follow())


Follow = Callable[[str, float], list[int]]
both = pytest.mark.parametrize("follow", [_waited, _awaited])
PATIENCE_SECONDS = 0.4
# Its end comes before its promised length, so that nobody can take it for a stream that was closed.
QUIET = replace(stream(*[b": ping\n\n"] * 5, CUT), length=10_000, pause_seconds=0.1)
"""Says nothing but that it lives, for longer than patience."""


@both
def test_a_quiet_stream_that_lived_until_it_was_cut_is_followed_on(follow: Follow) -> None:
    with serving(in_turn(QUIET, cut(), QUIET, stream(frame(1), DONE))) as server:
        assert follow(server.address, PATIENCE_SECONDS) == [1]
    assert len(server.seen) == 4


@both
def test_patience_begins_where_a_quiet_stream_was_cut(follow: Follow) -> None:
    with serving(in_turn(QUIET, cut())) as server, pytest.raises(UnreachableError):
        follow(server.address, PATIENCE_SECONDS)
    assert len(server.seen) > 3


def test_a_connection_that_fell_silent_was_last_heard_before_its_silence() -> None:
    for patience, is_over in ((SILENCE_SECONDS + 10, False), (SILENCE_SECONDS - 10, True)):
        following = Following("job_1", 0, QUICK, patience)
        following._heard_at -= 3600
        assert following.begin(httpx2.Response(200))
        if is_over:
            with pytest.raises(UnreachableError):
                following.pause_seconds(httpx2.ReadTimeout("silent"), "there")
        else:
            assert following.pause_seconds(httpx2.ReadTimeout("silent"), "there") > 0


@both
@pytest.mark.parametrize(
    "page",
    [
        Scripted(200, {"Content-Type": "text/html"}, (b"<h1>back soon</h1>",)),
        Scripted(
            200, {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}, (b"no gzip",)
        ),
    ],
)
def test_a_page_of_a_proxy_is_no_sign_of_life(follow: Follow, page: Scripted) -> None:
    with serving(in_turn(page)) as server, pytest.raises(UnreachableError):
        follow(server.address, 0.1)
    assert len(server.seen) > 1


@both
@pytest.mark.parametrize("text", [b"{}", b"[", b"hello"])
def test_a_frame_that_is_no_event_is_an_error(follow: Follow, text: bytes) -> None:
    with (
        serving(in_turn(stream(b"data: " + text + b"\n\n"))) as server,
        pytest.raises(ServerFaultError, match="the answer is no JobEvent") as caught,
    ):
        follow(server.address, PATIENCE_SECONDS)
    assert text.decode() in str(caught.value)


def _artifact(**fields: Any) -> Artifact:
    known = {
        "id": "art_1",
        "kind": "adapter",
        "filename": "adapter.zip",
        "size_bytes": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
    }
    return Artifact.model_validate({**known, **fields})


def _storage(*, cut_after: int, ranges: bool = True) -> Script:
    """Serves DATA, each answer cut after some bytes."""

    def script(request: Seen) -> Scripted:
        wanted = request.headers.get("Range", "bytes=0-") if ranges else "bytes=0-"
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        status = 206 if start else 200
        left = DATA[start:]
        part = (left[:cut_after], CUT) if len(left) > cut_after else (left,)
        return Scripted(status, {}, part, length=len(left))

    return script


def test_a_download_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    with asking(_storage(cut_after=3000)) as (client, seen):
        path = client.jobs.download("job_1", _artifact(), tmp_path / "new" / "adapter.zip")
    assert path.read_bytes() == DATA
    starts = [request.headers.get("Range") for request in seen]
    assert starts == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]
    assert [one.name for one in path.parent.iterdir()] == ["adapter.zip"]


def test_a_download_that_was_given_up_is_resumed_by_the_next_one(tmp_path: Path) -> None:
    answers = in_turn(Scripted(200, {}, (DATA[:5000], CUT), length=len(DATA)), cut())
    with asking(answers) as (client, _seen), pytest.raises(UnreachableError):
        client.jobs.download("job_1", _artifact(), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()

    async def fetch(address: str) -> Path:
        async with AsyncClient(address, retries=QUICK) as client:
            return await client.jobs.download("job_1", _artifact(), tmp_path / "a.zip")

    with serving(_storage(cut_after=4000)) as server:
        assert asyncio.run(fetch(server.address)).read_bytes() == DATA
    assert [request.headers["Range"] for request in server.seen] == ["bytes=5000-", "bytes=9000-"]


def test_a_server_without_ranges_begins_anew(tmp_path: Path) -> None:
    first = Scripted(200, {}, (DATA[:5000], CUT), length=len(DATA))
    with asking(in_turn(first, Scripted(200, {}, (DATA,)))) as (client, _seen):
        path = client.jobs.download("job_1", _artifact(), tmp_path / "a.zip")
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("data", [DATA[:-1] + b"x", DATA[:100], DATA + b"more"])
def test_other_bytes_are_refused_and_forgotten(tmp_path: Path, data: bytes) -> None:
    with (
        asking(in_turn(Scripted(200, {}, (data,)))) as (client, _seen),
        pytest.raises(ArtifactError, match=r"adapter\.zip has sha256"),
    ):
        client.jobs.download("job_1", _artifact(), tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_artifact_is_a_file(tmp_path: Path) -> None:
    empty = _artifact(size_bytes=0, sha256=hashlib.sha256(b"").hexdigest())
    with asking(in_turn(Scripted(200))) as (client, _seen):
        assert client.jobs.download("job_1", empty, tmp_path / "a").read_bytes() == b""
