from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from shortft_core.events import LogLine
from store import events, jobs, leases, results
from store.engine import Database
from store.settings import StoreSettings
from store.transitions import Lease
from tests.api.conftest import SPEC, Api, Opened, problem
from tests.faults import http
from tests.faults.harness import forked_service

both = pytest.mark.parametrize("stack", ["sqlite", "postgresql"], indirect=True)
sqlite = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
_END: Final = "\n\n"


def frames(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Frames of a stream by the names of their lines; a comment is called `:`."""
    frame: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, text = line.partition(":")
            frame[name or ":"] = text.strip()
        elif frame:
            yield frame
            frame = {}


def log(database: Database, lease: Lease, *texts: str) -> None:
    """Events as a worker reports them."""
    reports = [LogLine(message=text) for text in texts]
    database.transact(lambda session: events.append(session, lease, reports))


@sqlite
def test_a_finished_job_is_told_from_the_first_event_to_done(api: Api) -> None:
    job_id = api.submit()["id"]
    api.client.post(f"/jobs/{job_id}/cancel")
    answer = api.client.get(f"/jobs/{job_id}/events/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    first, *told, last = frames(iter(answer.text.split("\n")))
    assert first == {":": "ok", "retry": "2000"}
    assert [(frame["id"], frame["event"]) for frame in told] == [
        ("1", "job.created"),
        ("2", "job.cancelled"),
    ]
    listed = api.client.get(f"/jobs/{job_id}/events").json()["data"]
    assert [json.loads(frame["data"]) for frame in told] == listed
    assert last == {"event": "done", "data": '{"status": "cancelled"}'}
    assert api.service.streams.open == 0


@sqlite
def test_a_stream_goes_on_behind_what_was_seen(api: Api) -> None:
    job_id = api.submit()["id"]
    api.client.post(f"/jobs/{job_id}/cancel")
    path = f"/jobs/{job_id}/events/stream"
    for query, headers in [
        ("?after=1", {}),
        ("", {"Last-Event-ID": "1"}),
        ("?after=0", {"Last-Event-ID": "1"}),
    ]:
        told = frames(iter(api.client.get(f"{path}{query}", headers=headers).text.split("\n")))
        assert [frame["event"] for frame in told if "event" in frame] == ["job.cancelled", "done"]
    for seen in ("2", "999"):
        text = api.client.get(path, headers={"Last-Event-ID": seen}).text
        assert list(frames(iter(text.split("\n")))) == [
            {":": "ok", "retry": "2000"},
            {"event": "done", "data": '{"status": "cancelled"}'},
        ]


@sqlite
def test_a_stream_is_asked_for_properly(api: Api) -> None:
    path = f"/jobs/{api.submit()['id']}/events/stream"
    answer = api.client.get(path, headers={"Accept": "application/json"})
    problem(answer, 406, "not_acceptable")
    for seen in ("x", "-1", "99999999999"):
        answer = api.client.get(path, headers={"Last-Event-ID": seen})
        problem(answer, 422, "invalid_request")
    assert api.service.streams.open == 0


@sqlite
def test_a_stream_ends_without_done_when_its_time_is_over(open_api: Opened) -> None:
    api = open_api(stream_seconds=0.05)
    told = api.client.get(f"/jobs/{api.submit()['id']}/events/stream").text
    assert [frame.get("event") for frame in frames(iter(told.split("\n")))][-1] != "done"
    assert api.service.streams.open == 0


@pytest.fixture
def server(stack: StoreSettings, tmp_path: Path) -> Iterator[http.Api]:
    """The service in a process of its own: real sockets, real signals."""
    with forked_service(stack, tmp_path) as running:
        running.extra_env |= {"SHORTFT_MOST_STREAMS": "3", "SHORTFT_SHUTDOWN_SECONDS": "20"}
        with http.served(running) as found:
            yield found


@pytest.fixture
def database(server: http.Api) -> Database:
    """Its rows, seen from here."""
    return server.service.database


def started(server: http.Api, database: Database) -> tuple[str, Lease]:
    """A job that a worker holds."""
    with server.client() as client:
        job_id: str = client.post("/jobs", json=SPEC).json()["id"]
    claim = database.transact(lambda session: leases.claim(session, "wrk_a", ["default"]))
    assert claim is not None
    return job_id, claim.lease


@both
def test_a_reader_that_is_cut_off_again_and_again_misses_nothing(
    server: http.Api, database: Database
) -> None:
    job_id, lease = started(server, database)
    told: list[dict[str, Any]] = []
    statuses: list[str] = []
    with server.client() as client:
        for round_ in range(8):
            log(database, lease, f"{round_} a", f"{round_} b")
            if round_ == 7:
                database.transact(lambda session: results.succeed(session, lease, []))
            seen = {"Last-Event-ID": str(told[-1]["seq"])} if told else {}
            path = f"/jobs/{job_id}/events/stream"
            with client.stream("GET", path, headers=seen) as answer:
                for frame in frames(answer.iter_lines()):
                    if frame.get("event") == "done":
                        statuses.append(json.loads(frame["data"])["status"])
                    elif "data" in frame:
                        told.append(json.loads(frame["data"]))
                        if told[-1]["message"].endswith("b"):
                            # A round ends in the middle of the stream, by a closed socket.
                            break
        if not statuses:
            told += client.get(f"/jobs/{job_id}/events?after={told[-1]['seq']}").json()["data"]
    with database.read() as session:
        rows = events.after(session, job_id)
    assert [event["seq"] for event in told] == [row.seq for row in rows]
    assert told == [events.envelope(row) for row in rows]
    assert told[-1]["type"] == "job.succeeded"


@both
def test_events_arrive_while_a_job_runs(server: http.Api, database: Database) -> None:
    job_id, lease = started(server, database)
    with server.client() as client, client.stream("GET", f"/jobs/{job_id}/events/stream") as live:
        coming = frames(live.iter_lines())
        assert [next(coming).get("event") for _ in range(3)] == [
            None,
            "job.created",
            "job.preparing",
        ]
        for text in ("one", "two"):
            log(database, lease, text)
            assert json.loads(next(coming)["data"])["message"] == text
        database.transact(lambda session: jobs.cancel(session, job_id))
        assert next(coming)["event"] == "job.cancelling"


@sqlite
def test_a_key_may_have_so_many_streams_and_gets_them_back(
    server: http.Api, database: Database
) -> None:
    job_id, _ = started(server, database)
    request = f"GET /jobs/{job_id}/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    readers = []
    for _ in range(3):
        reader = socket.create_connection(("127.0.0.1", server.port))
        reader.sendall(request)
        assert b"200 OK" in reader.recv(4096)
        readers.append(reader)
    path = f"/jobs/{job_id}/events/stream"
    with server.client() as client:
        problem(client.get(path), 429, "too_many_streams")
        for reader in readers:
            reader.close()
        deadline = time.monotonic() + 30
        while True:
            with client.stream("GET", path) as again:
                if again.status_code == 200:
                    break
            assert time.monotonic() < deadline, "closed streams are still counted"
            time.sleep(0.1)


@sqlite
def test_sigterm_ends_open_streams_before_the_grace_is_over(
    server: http.Api, database: Database
) -> None:
    job_id, _ = started(server, database)
    with server.client() as client, client.stream("GET", f"/jobs/{job_id}/events/stream") as live:
        coming = frames(live.iter_lines())
        next(coming)
        server.terminate()
        rest = [frame.get("event") for frame in coming]
    # The grace is 20 seconds: a stream that is cut off at its end would be logged.
    assert server.wait(19) in {0, -signal.SIGTERM}
    assert "done" not in rest
    assert "timeout graceful shutdown exceeded" not in server.log.read_text()
