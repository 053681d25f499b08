"""Pictures per second of the generation process: sixteen requests one by one, and as one batch."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.generation import PROMPT, samplers
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
from benchmarks.updates import BASE
from shortft_core.adapter_card import CARD_FILE, Origin
from shortft_core.export import noise_schedule, save_adapter
from shortft_core.spec.generation import GenerationSpec, ServedAdapter
from worker.generate.messages import REPORTS, Answer, Batch, Done, Ready, Request
from worker.pipes import Child
from worker.settings import child_environment

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "serving.csv"
REQUESTS: Final = 16
PATIENCE_SECONDS: Final = 600.0


def write_adapter(folder: Path, steps: int) -> Path:
    """A folder of four random branches on the bundled model."""
    sampler = samplers(steps, 1)["merged"]
    if sampler.bank is None:
        raise ValueError("this sampler has branches")
    origin = Origin(
        base_model=BASE,
        base_sha256=sampler.model.base_fingerprint,
        method="shortft",
        guidance_scale=sampler.guidance_scale,
        rewards=("hps_v2",),
        spec_sha256="0" * 64,
        noise_schedule=noise_schedule(sampler.model, sampler.plan),
        segments=sampler.bank.branches,
    )
    save_adapter(folder, sampler.bank, sampler.plan, origin)
    return folder


def requests(adapter: Path, steps: int, count: int = REQUESTS) -> list[Request]:
    """One picture each, with the adapter."""
    card = hashlib.sha256((adapter / CARD_FILE).read_bytes()).hexdigest()
    served = ServedAdapter(id="adp_benchmark", prefix="", card_sha256=card)
    return [
        Request(
            id=f"gen_{number}",
            spec=GenerationSpec(
                base_model=BASE,
                adapters=(served,),
                prompts=(PROMPT,),
                seeds=(number,),
                steps=steps,
            ),
            adapters=(adapter,),
        )
        for number in range(count)
    ]


@contextmanager
def generator(folder: Path) -> Iterator[Child]:
    """The process of a generate worker, on one thread."""
    command = [sys.executable, "-m", "worker.children.generator"]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    child = Child.spawn(command, env=child_environment(threads), cwd=folder)
    try:
        while not isinstance(REPORTS.validate_python(_hear(child)), Ready):
            pass
        yield child
    finally:
        child.kill()


def answered(child: Child, batch: Batch) -> int:
    """How many pictures a batch gave; raises RuntimeError for a request without any."""
    child.send(batch.written().model_dump(mode="json"))
    pictures = 0
    while not isinstance(report := REPORTS.validate_python(_hear(child)), Done):
        if isinstance(report, Answer):
            if report.problem is not None:
                raise RuntimeError(report.problem.message)
            pictures += len(report.pictures)
    return pictures


def _hear(child: Child) -> Mapping[str, object]:
    message = child.receive(PATIENCE_SECONDS)
    if message is None:
        raise RuntimeError(f"the generation process is silent: {child.log_tail()}")
    return message


def measure(rounds: int, *, steps: int = 50, count: int = REQUESTS) -> dict[str, list[float]]:
    """Pictures per second of every round; the ways take turns, and the first turn only warms."""
    rates: dict[str, list[float]] = {"one by one": [], "one batch": []}
    with tempfile.TemporaryDirectory() as name, generator(Path(name)) as child:
        folder = Path(name)
        asked = requests(write_adapter(folder / "adapter", steps), steps, count)
        ways: dict[str, list[tuple[Request, ...]]] = {
            "one by one": [(one,) for one in asked],
            "one batch": [tuple(asked)],
        }
        for number in range(rounds + 1):
            for way, batches in ways.items():
                started = time.perf_counter()
                made = sum(
                    answered(child, Batch(id=f"{number}", requests=batch, folder=folder / "out"))
                    for batch in batches
                )
                if number:
                    rates[way].append(made / (time.perf_counter() - started))
    return rates


def rows_of(rates: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    """Medians; ratios are medians of each round's own ratio, so that a slow minute cancels."""
    rows: list[dict[str, object]] = []
    for way, found in rates.items():
        ratios = [own / single for own, single in zip(found, rates["one by one"], strict=True)]
        rows.append(
            {
                "requests": way,
                "rounds": len(found),
                "images_per_second": round(median(found), 3),
                "slowest": round(min(found), 3),
                "fastest": round(max(found), 3),
                "to_one_by_one": round(median(ratios), 3),
            }
        )
    return rows


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = rows_of(measure(options.rounds))
    write_csv(CSV, rows)
    write_json(CSV.with_suffix(".json"), {"machine": machine(), "threads": 1})
    log.info("\n%s", section())


def section() -> str:
    """What the document says, from the files of the measurement."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    head = ["16 requests", "rounds", "images per s", "slowest", "fastest", "to one by one"]
    facts = read_json(CSV.with_suffix(".json"))
    table = markdown_table(head, [list(row.values()) for row in rows])
    return f"{described(facts['machine'])}\n\n{table}"


if __name__ == "__main__":
    main()
