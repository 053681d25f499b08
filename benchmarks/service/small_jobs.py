"""Thousands of jobs that do nothing: what the queue itself costs, with each job done once.

First as rows that are only claimed, then as jobs that run to their end.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sqlalchemy import func, select

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
from benchmarks.service.claims import claim_all
from benchmarks.service.stacks import KINDS, Kind
from benchmarks.service.storm import servers
from store.models import Job
from store.states import JobStatus
from tests.faults.harness import FAST_TRAINER, Service, service

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "small_jobs.csv"
WORKERS: Final = 4
_LONGEST_SECONDS: Final = 1800.0


def measure(kind: Kind, count: int) -> dict[str, object]:
    """The row of a stack; the clock runs from the start of the workers to the last result."""
    with TemporaryDirectory(prefix="shortft-small-jobs-") as name:
        # PostgreSQL may run as another user, who has to reach its folder.
        folder = Path(name)
        folder.chmod(0o755)
        with servers(kind, folder) as (settings, _, _), service(settings, folder) as running:
            done = folder / "done"
            command = ["sh", "-c", FAST_TRAINER, str(done)]
            running.extra_env["SHORTFT_TRAINER_COMMAND"] = json.dumps(command)
            created = [running.create(updates=1) for _ in range(count)]
            began = time.monotonic()
            for _ in range(WORKERS):
                running.start_worker()
            running.until(lambda: _succeeded(running) == count, _LONGEST_SECONDS)
            seconds = time.monotonic() - began
            ran = Counter(json.loads(line)["job_id"] for line in done.read_text().splitlines())
    return row_of(kind, seconds, created, ran)


def measure_claims(kind: Kind, count: int) -> dict[str, object]:
    """The row of a stack whose jobs are claimed and nothing else."""
    with TemporaryDirectory(prefix="shortft-claims-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(kind, folder) as (settings, _, _), service(settings, folder) as running:
            created = [running.create(updates=1) for _ in range(count)]
            claimed, seconds = claim_all(settings, WORKERS)
    return row_of(kind, seconds, created, Counter(claimed), what="claimed")


def row_of(
    kind: Kind, seconds: float, created: list[str], ran: Counter[str], *, what: str = "run"
) -> dict[str, object]:
    """One stack of the table."""
    return {
        "stack": kind,
        "what": what,
        "jobs": len(created),
        "workers": WORKERS,
        "not_once": sum(ran[job_id] != 1 for job_id in created),
        "seconds": round(seconds, 1),
        "jobs_per_second": round(len(created) / seconds, 1),
    }


def _succeeded(running: Service) -> int:
    time.sleep(0.5)
    with running.database.read() as session:
        count = select(func.count()).select_from(Job).where(Job.status == JobStatus.SUCCEEDED)
        return session.scalars(count).one()


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
    parser.add_argument("--jobs", type=int, default=2000)
    options = parser.parse_args()
    rows = []
    for kind in KINDS:
        for work in (measure_claims, measure):
            rows.append(work(kind, options.jobs))
            log.info("%s", rows[-1])
    write_csv(CSV, rows)
    write_json(CSV.with_suffix(".json"), {"machine": machine()})


if __name__ == "__main__":
    main()
