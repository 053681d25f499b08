"""A storm over the whole service: hundreds of jobs and faults, and nothing lost or doubled.

The trainers are the torch-free one of the tests, which proves by its result that each update was
made once. Times are scaled: a lease is 5 s instead of 90 s.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import SecretStr

from benchmarks.results import (
    NOT_MEASURED,
    RESULTS,
    described,
    machine,
    markdown_table,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from benchmarks.service.stacks import KINDS, Kind
from benchmarks.service.storm_faults import Storm, living_trainers
from benchmarks.service.storm_verdict import Verdict, judge
from migrations.run import upgrade
from store.engine import open_database
from store.settings import StoreSettings
from store.states import TERMINAL, JobStatus
from tests.faults.harness import Service, service
from tests.faults.postgres import PostgresServer, restartable_server
from tests.servers.processes import wait_until
from tests.servers.redis import RedisServer

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "storm.csv"
TIMES: Final = {
    "lease_seconds": 5.0,
    "heartbeat_seconds": 1.0,
    "sweep_seconds": 1.0,
    "wake_again_seconds": 2.0,
    "backoff_seconds": 0.2,
}
WORKERS: Final = 3
_STEP_SECONDS: Final = 0.1
_CALM_SECONDS: Final = 300.0
"""How long the last jobs may take once the storm is over."""
_ORPHAN_SECONDS: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything one stack gets."""

    jobs: int = 160
    faults: int = 160
    pause_seconds: float = 2.5
    """Between two faults, on average."""
    seed: int = 0


def measure(kind: Kind, plan: Plan) -> tuple[dict[str, object], dict[str, int]]:
    """The row of a stack, and how often each fault struck."""
    with TemporaryDirectory(prefix="shortft-storm-") as name, ExitStack() as opened:
        # PostgreSQL may run as another user, who has to reach its folder.
        folder = Path(name)
        folder.chmod(0o755)
        settings, redis, postgres = opened.enter_context(servers(kind, folder))
        with service(settings, folder, **TIMES) as running:
            storm = Storm(
                service=running, draw=random.Random(plan.seed), redis=redis, postgres=postgres
            )
            began = time.monotonic()
            planned = blow(storm, plan)
            seconds = time.monotonic() - began
            running.stop_workers()
            orphans = _orphans(running)
            verdict = judge(running, planned, storm.cancelled)
    for promise, broken in verdict.broken.items():
        for job_id in broken:
            log.error("%s: %s", promise, job_id)
    return row_of(kind, seconds, sum(storm.hits.values()), verdict, orphans), dict(storm.hits)


@contextmanager
def servers(
    kind: Kind, folder: Path
) -> Iterator[tuple[StoreSettings, RedisServer | None, PostgresServer | None]]:
    """A migrated stack, and its servers where it has any; Redis keeps nothing over a restart."""
    settings = StoreSettings(data_dir=folder / "data", secret_key=SecretStr("0" * 64))
    settings.data_dir.mkdir()
    with ExitStack() as opened:
        redis, postgres = None, None
        if kind == "postgresql":
            (folder / "postgresql").mkdir()
            postgres = opened.enter_context(restartable_server(folder / "postgresql"))
            redis = RedisServer(folder / "redis")
            redis.start()
            opened.callback(redis.kill)
            addresses = {
                "database_url": SecretStr(postgres.url.render_as_string(hide_password=False)),
                "redis_url": SecretStr(redis.url),
            }
            settings = settings.model_copy(update=addresses)
        database = open_database(settings.database_address())
        upgrade(database.engine)
        database.close()
        yield settings, redis, postgres


def blow(storm: Storm, plan: Plan) -> dict[str, int]:
    """Makes jobs and strikes until both are done, then waits for calm; each job's updates."""
    planned: dict[str, int] = {}
    next_fault = time.monotonic() + 5.0
    # Jobs come as evenly as faults do, so that the last fault still meets some.
    while len(planned) < plan.jobs or sum(storm.hits.values()) < plan.faults:
        storm.undo_what_is_due()
        storm.keep(WORKERS)
        struck = sum(storm.hits.values())
        if len(planned) < plan.jobs and len(planned) * plan.faults <= (struck + 6) * plan.jobs:
            updates = storm.draw.randint(10, 40)
            job_id = storm.service.create(
                updates=updates, step_seconds=_STEP_SECONDS, evaluate_every=10
            )
            planned[job_id] = updates
        if time.monotonic() >= next_fault:
            fault = storm.strike()
            log.info("%3d jobs, %3d faults: %s", len(planned), struck, fault)
            # Nothing to strike: look again soon.
            pause = storm.draw.uniform(0.4, 1.6) * plan.pause_seconds if fault else 0.2
            next_fault = time.monotonic() + pause
        time.sleep(0.05)
    _calm(storm, planned)
    return planned


def _calm(storm: Storm, planned: dict[str, int]) -> None:
    """Undoes everything, and returns when all jobs have come to their end or will not any more."""
    deadline = time.monotonic() + _CALM_SECONDS
    while time.monotonic() < deadline:
        storm.clear_up()
        storm.keep(WORKERS)
        if all(storm.service.job(job_id).status in TERMINAL for job_id in planned):
            return
        time.sleep(1.0)


def _orphans(running: Service) -> int:
    """Trainers that outlive their workers for long."""
    try:
        wait_until(lambda: not living_trainers(running), _ORPHAN_SECONDS)
    except TimeoutError:
        return len(living_trainers(running))
    return 0


def row_of(
    kind: Kind, seconds: float, faults: int, verdict: Verdict, orphans: int
) -> dict[str, object]:
    """One stack of the table."""
    return {
        "stack": kind,
        "jobs": sum(verdict.statuses.values()),
        "succeeded": verdict.statuses[JobStatus.SUCCEEDED.value],
        "cancelled": verdict.statuses[JobStatus.CANCELLED.value],
        "faults": faults,
        **{promise: len(jobs) for promise, jobs in verdict.broken.items()},
        "orphans": orphans,
        "rework_percent": round(verdict.rework_percent, 1),
        "requeues": len(verdict.waits_seconds),
        "wait_median_s": _rounded(median, verdict.waits_seconds),
        "wait_max_s": _rounded(max, verdict.waits_seconds),
        "minutes": round(seconds / 60, 1),
    }


def _rounded(figure: Callable[[list[float]], float], values: list[float]) -> float | str:
    return round(figure(values), 1) if values else ""


def section() -> str:
    """What the document says, from the files of the measurement."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    facts = read_json(CSV.with_suffix(".json"))
    head = [name.replace("_", " ") for name in rows[0]]
    table = markdown_table(head, [list(row.values()) for row in rows])
    return f"{described(facts['machine'])}\n\n{table}"


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", choices=KINDS, action="append")
    parser.add_argument("--jobs", type=int, default=Plan.jobs)
    parser.add_argument("--faults", type=int, default=Plan.faults)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    options = parser.parse_args()
    plan = Plan(jobs=options.jobs, faults=options.faults, seed=options.seed)
    for kind in options.stack or KINDS:
        row, faults = measure(kind, plan)
        log.info("%s %s", row, faults)
        save(row, {"seed": plan.seed, "workers": WORKERS, "faults": faults, "times": TIMES})


def save(row: dict[str, object], facts: dict[str, object], csv: Path = CSV) -> None:
    """Replaces the row of one stack and its facts, and keeps those of the other."""
    kind, path = str(row["stack"]), csv.with_suffix(".json")
    others = [other for other in read_csv(csv) if other["stack"] != kind]
    before = read_json(path)["stacks"] if others else {}
    write_csv(csv, sorted([*others, row], key=lambda found: str(found["stack"]), reverse=True))
    stacks = {**{name: before[name] for name in before if name != kind}, kind: facts}
    write_json(path, {"machine": machine(), "stacks": stacks})


if __name__ == "__main__":
    main()
