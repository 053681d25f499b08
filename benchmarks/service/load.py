"""The API under load: polls, submissions and open event streams at once, on one machine.

The database, the API, the callers and the writer of the events share its cores, as on a laptop; no
training runs meanwhile. Each request shows one of some API keys, whose open jobs are counted. What
a process answers in its first seconds stands apart.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

import httpx2

from benchmarks.results import (
    NOT_MEASURED,
    RESULTS,
    core_ticks,
    described,
    machine,
    markdown_table,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from benchmarks.service.stacks import KINDS, Kind, environment, process, stack
from benchmarks.service.traffic import Outcome, Stream, Tally, Traffic, drive, percentile
from shortft_core import catalog
from shortft_core.events import LogLine
from shortft_core.spec import AlignSpec
from store import api_keys, events, jobs, leases
from store.api_keys import NewApiKey, Scope
from store.engine import Database, open_database
from store.settings import StoreSettings
from store.transitions import Lease
from tests.servers.processes import free_port, wait_until

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "load.csv"
GOAL_MILLISECONDS: Final = 100.0
"""99 of 100 polls are answered within this, on PostgreSQL."""
FOLLOWED: Final = 20
"""Jobs that write events; the streams are spread over them."""
EVENTS_PER_SECOND: Final = 10.0
"""Of all of them together."""
PROCESSES: Final = (1, 2)
"""Of the API; two share the requests as behind a balancer."""
CALLERS: Final = 20
"""API keys, of which each request shows any."""
SPEC: Final[Mapping[str, Any]] = {
    "base_model": {"name": "shapes"},
    "method": {"type": "draft_k", "updates": 3},
    "rewards": [{"name": "symmetry"}],
    "prompts": {"name": "shapes-train"},
}
_UNLIMITED: Final = {"REQUESTS_PER_MINUTE": 10**9, "MOST_STREAMS": 1000, "MOST_OPEN_JOBS": 10**9}


def measure(kind: Kind, processes: int, seconds: float) -> list[dict[str, object]]:
    """The rows of the table for one kind of stack and so many processes of the API."""
    with stack(kind) as settings, ExitStack() as running:
        database = open_database(settings.database_address())
        held = hold_jobs(database, FOLLOWED)
        keys = tuple(_new_key(database, settings.secret()) for _ in range(CALLERS))
        urls = [_serve(running, settings, number) for number in range(processes)]
        traffic = Traffic(base_urls=urls, keys=keys, seconds=seconds)
        before = core_ticks()
        outcome = asyncio.run(_drive(traffic, settings, held))
        stolen = core_ticks().stolen_percent(before)
        last = {lease.row_id: _last_event(database, lease.row_id) for lease in held}
        database.close()
    about = {"stack": kind, "processes": processes}
    return [{**about, **row, "stolen_percent": stolen} for row in rows_of(seconds, outcome, last)]


def _serve(running: ExitStack, settings: StoreSettings, number: int) -> str:
    """Starts a process of the API that runs as long as the stack is open; returns its address."""
    port = free_port()
    env = environment(settings, {"PORT": port, **_UNLIMITED})
    running.enter_context(process("api", [], env, settings.data_dir / f"api-{number}.log"))
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _is_ready(url))
    return url


def _new_key(database: Database, secret: bytes) -> str:
    new = NewApiKey(name="load", scopes=frozenset(Scope))
    _, key = database.transact(lambda session: api_keys.issue(session, secret, new))
    return key


def hold_jobs(database: Database, count: int) -> list[Lease]:
    """Jobs that a worker holds, so that events can be written; the writer is that worker."""
    spec = catalog.resolve(AlignSpec.model_validate(dict(SPEC)))
    held = []
    for _ in range(count):
        database.transact(lambda session: jobs.create(session, jobs.NewJob(spec=spec)))
        claim = database.transact(
            lambda session: leases.claim(session, "load", ["default"], lease_seconds=3600)
        )
        assert claim is not None  # noqa: S101 - it was created just now
        held.append(claim.lease)
    return held


def write_events(url: str, held: list[Lease], seconds: float) -> None:
    """Writes one event after the other, to each job in turn, at a steady rate."""
    database = open_database(url)
    began = time.monotonic()
    for number in range(int(seconds * EVENTS_PER_SECOND)):
        time.sleep(max(0.0, began + number / EVENTS_PER_SECOND - time.monotonic()))
        line = LogLine(message=f"line {number}")
        lease = held[number % len(held)]
        with database.write() as session:
            events.append(session, lease, [line])
    database.close()


async def _drive(traffic: Traffic, settings: StoreSettings, held: list[Lease]) -> Outcome:
    writer = multiprocessing.get_context("spawn").Process(
        target=write_events,
        args=(settings.database_address(), held, traffic.warm_up_seconds + traffic.seconds),
    )
    writer.start()

    async def settle() -> None:
        await asyncio.to_thread(writer.join)
        # The last event is on its way for as long as a look takes.
        await asyncio.sleep(3.0)

    return await drive(traffic, [lease.row_id for lease in held], SPEC, settle)


def rows_of(seconds: float, outcome: Outcome, last: Mapping[str, int]) -> list[dict[str, object]]:
    """One row for each kind of request."""
    for tally in (outcome.polls, outcome.submissions):
        for error in tally.errors[:5]:
            log.warning("%s", error)
    return [
        _row("GET /jobs/{id}", seconds, outcome.polls),
        _row("POST /jobs", seconds, outcome.submissions),
        _streams_row(seconds, outcome.streams, last),
    ]


def _row(what: str, seconds: float, tally: Tally) -> dict[str, object]:
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    return {
        "request": what,
        "seconds": seconds,
        "count": tally.count,
        "errors": len(tally.errors),
        "missed": "",
        **{
            name: round(1000 * percentile(tally.latencies_seconds, share), 1)
            for name, share in shares.items()
        },
        "cold_p99_ms": round(1000 * percentile(tally.cold_latencies_seconds, 0.99), 1),
    }


def _streams_row(
    seconds: float, streams: tuple[Stream, ...], last: Mapping[str, int]
) -> dict[str, object]:
    return {
        "request": "events/stream",
        "seconds": seconds,
        "count": len(streams),
        "errors": sum(stream.error is not None for stream in streams),
        "missed": sum(stream.missed(last[stream.job_id]) for stream in streams),
        "p50_ms": "",
        "p95_ms": "",
        "p99_ms": "",
        "max_ms": "",
        "cold_p99_ms": "",
    }


def _last_event(database: Database, job_id: str) -> int:
    with database.read() as session:
        return jobs.get(session, job_id).event_seq


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz").is_success
    except httpx2.ConnectError:
        return False


def section() -> str:
    """What the document says, from the file of the measurement."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    head = [
        "stack",
        "API processes",
        "request",
        "s",
        "count",
        "errors",
        "events missed",
        "p50 ms",
        "p95",
        "p99",
        "max",
        "p99 of the first 10 s",
        "% of the cores taken by the host",
    ]
    facts = read_json(CSV.with_suffix(".json"))
    table = markdown_table(head, [list(row.values()) for row in rows])
    return f"{described(facts['machine'])}\n\n{table}"


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--stack", choices=KINDS, action="append")
    parser.add_argument("--processes", type=int, action="append")
    options = parser.parse_args()
    rows = [
        row
        for kind in options.stack or KINDS
        for processes in options.processes or PROCESSES
        for row in measure(kind, processes, options.seconds)
    ]
    for row in rows:
        log.info("%s", row)
    write_csv(CSV, rows)
    write_json(CSV.with_suffix(".json"), {"machine": machine(), "goal_ms": GOAL_MILLISECONDS})


if __name__ == "__main__":
    main()
