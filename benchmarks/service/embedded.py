"""`shortft serve` on one machine: how soon a job is claimed, and what batching gives callers.

Jobs are run by the contract trainer of the tests, which ends at once: no training takes the cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

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
from benchmarks.service.load import SPEC
from shortft_client import Client
from tests.api.embedded_service import embedded

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "embedded.csv"
CLAIM_GOAL_SECONDS: Final = 0.5
CONTRACT: Final = Path(__file__).parents[2] / "tests" / "trainers" / "contract.py"
PROMPT: Final = "a red circle above a blue star on a white background"
REQUESTS: Final = 16
CALLERS: Final = 16


@contextmanager
def served() -> Iterator[Client]:
    """A client of an embedded service that runs until the block ends."""
    variables = {
        "SHORTFT_TRAINER_COMMAND": json.dumps([sys.executable, str(CONTRACT)]),
        "SHORTFT_REQUESTS_PER_MINUTE": str(10**9),
    }
    with (
        tempfile.TemporaryDirectory(prefix="shortft-embedded-") as name,
        embedded(Path(name) / "data", "--port", "0", variables=variables) as service,
        Client(service.address) as client,
    ):
        yield client


def claim_seconds(client: Client, jobs: int) -> list[float]:
    """From the commit of each job to its claim; one after the other, each with a free worker."""
    taken = []
    for _ in range(jobs):
        job = client.jobs.wait(client.jobs.create(SPEC).id)
        assert job.started_at is not None  # noqa: S101 - it is over
        taken.append((job.started_at - job.created_at).total_seconds())
    return taken


def images_per_second(client: Client, callers: int, rounds: int) -> list[float]:
    """Rates of 16 requests for one picture each, from so many callers; the first round warms."""

    def ask(seed: int) -> None:
        made = client.generate(prompt=PROMPT, base_model="shapes", seed=seed)
        assert made.status == "succeeded", made.error  # noqa: S101

    rates = []
    with ThreadPoolExecutor(callers) as pool:
        for number in range(rounds + 1):
            began = time.perf_counter()
            list(pool.map(ask, range(REQUESTS)))
            if number:
                rates.append(REQUESTS / (time.perf_counter() - began))
    return rates


def measure(jobs: int, rounds: int) -> list[dict[str, object]]:
    """The rows of the table."""
    with served() as client:
        claims = sorted(claim_seconds(client, jobs))
        alone = images_per_second(client, 1, rounds)
        together = images_per_second(client, CALLERS, rounds)
    ratio = round(median(together) / median(alone), 2)
    return [
        _row("commit to claim, median", jobs, round(median(claims), 3), "s"),
        _row("commit to claim, p95", jobs, round(claims[int(0.95 * jobs)], 3), "s"),
        _row("images, one caller", rounds, round(median(alone), 2), "1/s"),
        _row(f"images, {CALLERS} callers", rounds, round(median(together), 2), "1/s"),
        _row(f"{CALLERS} callers to one", rounds, ratio, ""),
    ]


def _row(what: str, times: int, value: float, unit: str) -> dict[str, object]:
    return {"what": what, "times": times, "value": value, "unit": unit}


def section() -> str:
    """What the document says, from the file of the measurement."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    facts = read_json(CSV.with_suffix(".json"))
    table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
    return f"{described(facts['machine'])}\n\n{table}"


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = measure(options.jobs, options.rounds)
    for row in rows:
        log.info("%s", row)
    write_csv(CSV, rows)
    facts = {"machine": machine(), "claim_goal_seconds": CLAIM_GOAL_SECONDS}
    write_json(CSV.with_suffix(".json"), facts)


if __name__ == "__main__":
    main()
