"""The callers of the load benchmark, against a server that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.service.connections import Answer, Connections
from benchmarks.service.load import rows_of
from benchmarks.service.traffic import Outcome, Stream, Tally

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"


def talk(handler: Handler, work: Callable[[Connections], Awaitable[list[Answer]]]) -> list[Answer]:
    async def run() -> list[Answer]:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with server:
            connections = Connections(*server.sockets[0].getsockname()[:2])
            try:
                return await work(connections)
            finally:
                connections.close()
                # Closed transports are taken down by the loop's next turns.
                await asyncio.sleep(0.01)

    return asyncio.run(run())


def test_a_connection_is_used_again_and_each_request_at_a_time_has_its_own() -> None:
    opened = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        while head := await reader.read(1000):
            assert head.startswith(b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:")
            assert b"\r\nX-API-Key: k\r\n" in head
            writer.write(OK)
        writer.close()

    async def work(connections: Connections) -> list[Answer]:
        request = connections.prepared("GET", "/a", {"X-API-Key": "k"})
        first = [await connections.send(request) for _ in range(3)]
        return first + await asyncio.gather(*[connections.send(request) for _ in range(2)])

    assert talk(serve, work) == [Answer(200, b"hi")] * 5
    assert len(opened) == 2


def test_an_answer_that_is_cut_off_is_an_error() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.read(1000)).endswith(b'\r\nContent-Length: 8\r\n\r\n{"a": 1}')
        writer.write(OK[:-1])
        writer.close()

    async def work(connections: Connections) -> list[Answer]:
        return [await connections.send(connections.prepared("POST", "/", {}, {"a": 1}))]

    with pytest.raises(EOFError):
        talk(serve, work)


def test_the_rows_count_what_was_missed_and_refused() -> None:
    polls = Tally(
        latencies_seconds=[0.001 * n for n in range(1, 101)], cold_latencies_seconds=[9.0]
    )
    outcome = Outcome(
        polls=polls,
        submissions=Tally(
            latencies_seconds=[0.5], cold_latencies_seconds=[0.5], errors=["503 b''"]
        ),
        streams=(Stream(job_id="a", seen=[1, 2, 3]), Stream(job_id="a", seen=[1, 3], error="x")),
    )
    polled, submitted, streamed = rows_of(1.0, outcome, {"a": 3})
    assert (polled["count"], polled["errors"], polled["p99_ms"]) == (101, 0, 100.0)
    assert polled["cold_p99_ms"] == 9000.0
    assert (submitted["count"], submitted["errors"]) == (3, 1)
    assert (streamed["missed"], streamed["errors"]) == (2, 1)
