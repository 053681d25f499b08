"""Seconds per update of every variant, measured once on a machine that does nothing else."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Final

import torch

from benchmarks.alignment.budget import CALIBRATED, Kind, Timing, shares_of
from benchmarks.alignment.cells import BUDGET_UPDATES, VARIANTS, Folders
from benchmarks.results import machine, read_csv, write_csv, write_json
from benchmarks.units import units_made
from benchmarks.updates import Timed, Tuning, build, job

log = logging.getLogger("benchmarks")

TIMED: Final = 3
"""Updates of one kind and stage in one process, after one that warms it up."""
EXPECTED_DRAWS: Final = 500
"""Chains whose mean cost is that of a method that draws its steps by chance."""
ROUNDS: Final = 2
"""Processes per variant; a round measures all variants, so that a slow minute is nobody's."""


def calibrate(variants: Iterable[str], folders: Folders, *, rounds: int = ROUNDS) -> None:
    """Measures the variants and replaces their rows in the calibration table."""
    chosen = tuple(variants)
    found: dict[tuple[str, int, Kind], Timing] = {}
    for number in range(rounds):
        for variant in chosen:
            for timing in _in_process(variant, number):
                key = (timing.variant, timing.stage, timing.kind)
                found[key] = _joined(found[key], timing) if key in found else timing
                log.info("%s stage %d %s %.2f s", *key, timing.seconds[0])
    kept = [
        row | {CALIBRATED: row.get(CALIBRATED, "")}
        for row in read_csv(folders.calibration)
        if row["variant"] not in chosen
    ]
    write_csv(folders.calibration, [*kept, *(timing.row(threads=1) for timing in found.values())])
    write_json(folders.calibration.with_suffix(".json"), machine())


def _joined(before: Timing, after: Timing) -> Timing:
    return replace(after, seconds=before.seconds + after.seconds, units=before.units + after.units)


def _in_process(variant: str, number: int) -> list[Timing]:
    """A fresh process for each variant: nobody inherits another's memory or threads."""
    command = [sys.executable, "-m", "benchmarks.alignment", "measure", variant, str(number)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command
    return [
        Timing(**{**row, "seconds": tuple(row["seconds"]), "units": tuple(row["units"])})
        for row in json.loads(done.stdout)
    ]


def measure(variant: str, number: int) -> None:
    """Writes the timings of one variant to standard output, as JSON."""
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps([asdict(timing) for timing in timings(variant, number)]))


def timings(variant: str, number: int = 0, *, timed: int = TIMED) -> Iterator[Timing]:
    """Every kind of update of every stage, each over batches of its own."""
    method = VARIANTS[variant].model_copy(update={"updates": BUDGET_UPDATES})
    spec = job(method)
    tuning = Tuning(spec, build(spec))
    batches = [tuning.batch(number * (timed + 1) + index) for index in range(timed + 1)]
    for stage in range(1, len(shares_of(method)) + 1):
        tuning.method.enter_stage(stage)
        drawn = [units_made(tuning.method, draw) for draw in range(EXPECTED_DRAWS)]
        made = [tuning.timed(batch) for batch in batches][1:]
        # A pool spares forwards, the same for every image; where there is none, chance may decide.
        mean = None if tuning.method.image_pool() else fmean(drawn)
        yield _timing(variant, stage, "new", made, mean)
        if tuning.method.image_pool():
            again = [tuning.timed(batch) for batch in batches[1:]]
            yield _timing(variant, stage, "reused", again, None)


def _timing(
    variant: str, stage: int, kind: Kind, updates: Sequence[Timed], expected: float | None
) -> Timing:
    units = tuple(update.units for update in updates)
    return Timing(
        variant,
        stage,
        kind,
        seconds=tuple(update.seconds for update in updates),
        units=units,
        expected_units=fmean(units) if expected is None else expected,
    )
