"""Time per image and peak memory of one update of every method, beside the evaluation counts.

Every measurement has a process of its own. A round measures all methods once, so that a slow minute
of the machine is nobody's alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import median
from typing import Any, Final

import torch

from benchmarks import memory
from benchmarks.plotting import new_figure, save_figure
from benchmarks.results import (
    NOT_MEASURED,
    RESULTS,
    described,
    machine,
    markdown_table,
    picture,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from benchmarks.updates import Tuning, build, job
from shortft_core.spec import (
    AlignProp,
    AnyMethod,
    Direct,
    DraftK,
    DraftLV,
    DRTune,
    ReFL,
    ShortFT,
)

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "cost.csv"
PICTURE: Final = RESULTS / "cost.png"
MEBIBYTE: Final = 2**20
_COMMON: Final[Mapping[str, Any]] = {
    "rank": 16,
    "batch_size": 4,
    "updates": 100,
    "merged_rollouts": True,
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A method in one of its stages."""

    method: AnyMethod
    stage: int = 1


def _shortft(stage: int = 1, **options: Any) -> Variant:
    return Variant(ShortFT(**_COMMON, **options), stage)


VARIANTS: Final[Mapping[str, Variant]] = {
    "shortft stage 1, n = 1": _shortft(),
    "shortft stage 1, n = 2": _shortft(first_segment_grad_steps=2),
    "shortft stage 1, n = 12": _shortft(first_segment_grad_steps=12),
    "shortft stage 2": _shortft(2),
    "shortft stage 3": _shortft(3),
    "shortft stage 4": _shortft(4),
    "shortft stage 2, pooled": _shortft(2, prefix_pool=4),
    "shortft stage 3, pooled": _shortft(3, prefix_pool=4),
    "shortft stage 4, pooled": _shortft(4, prefix_pool=4),
    "shortft no_tlora, stage 1": _shortft(ablation="no_tlora"),
    "shortft naive_jump, stage 1": _shortft(ablation="naive_jump"),
    "draft_k 1": Variant(DraftK(gradient_steps=1, **_COMMON)),
    "draft_k 5": Variant(DraftK(gradient_steps=5, **_COMMON)),
    "draft_k 50": Variant(DraftK(gradient_steps=50, **_COMMON)),
    "draft_k 50, checkpointed": Variant(
        DraftK(gradient_steps=50, gradient_checkpointing=True, **_COMMON)
    ),
    "draft_lv": Variant(DraftLV(**_COMMON)),
    "refl": Variant(ReFL(**_COMMON)),
    "alignprop, checkpointed": Variant(AlignProp(**_COMMON)),
    "alignprop": Variant(AlignProp(gradient_checkpointing=False, **_COMMON)),
    "drtune, K = 5": Variant(DRTune(trained_steps=5, **_COMMON)),
    "direct": Variant(Direct(**_COMMON)),
}
SHORTFT: Final = "shortft stage 1, n = 1"
DRTUNE: Final = "drtune, K = 5"
ALIGNPROP: Final = "alignprop, checkpointed"
GOALS: Final[Mapping[str, float]] = {DRTUNE: 0.50, ALIGNPROP: 0.25}
"""Most that stage 1 of ShortFT may cost per image, relative to these."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One update in one process."""

    seconds_per_image: float
    peak_bytes: int
    """Peak of the resident set above the loaded models."""
    units: float
    """Forwards per image by the cost model."""


def measure(name: str, threads: int, number: int) -> Sample:
    """One update of batch `number` after another that warms up; pooled: again the same batch."""
    torch.set_num_threads(threads)
    variant = VARIANTS[name]
    spec = job(variant.method)
    tuning = Tuning(spec, build(spec))
    tuning.method.enter_stage(variant.stage)
    memory.reset_peak()
    loaded = memory.resident_bytes()
    pooled = tuning.method.image_pool() > 0
    tuning.update(tuning.batch(number if pooled else number + 1))
    timed = tuning.timed(tuning.batch(number))
    size = spec.method.batch_size
    return Sample(timed.seconds / size, memory.peak_resident_bytes() - loaded, timed.units)


def _in_process(name: str, threads: int, number: int) -> Sample:
    command = [sys.executable, "-m", "benchmarks.cost", "--measure", name]
    options = ["--threads", str(threads), "--number", str(number)]
    done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own command
    return Sample(**json.loads(done.stdout))


@dataclass(frozen=True, slots=True)
class Cost:
    """What one method costs with one number of threads."""

    name: str
    threads: int
    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> float:
        """Median seconds per image."""
        return median(sample.seconds_per_image for sample in self.samples)

    @property
    def units(self) -> float:
        """Median units of the chains that were drawn."""
        return median(sample.units for sample in self.samples)

    @property
    def mebibytes(self) -> float:
        """Median peak memory."""
        return median(sample.peak_bytes for sample in self.samples) / MEBIBYTE

    def row(self, reference: Cost) -> dict[str, object]:
        """The row of the table, beside the method it is compared with."""
        every = [sample.seconds_per_image for sample in self.samples]
        return {
            "method": self.name,
            "threads": self.threads,
            "rounds": len(self.samples),
            "seconds_per_image": round(self.seconds, 4),
            "fastest": round(min(every), 4),
            "slowest": round(max(every), 4),
            "to_drtune": round(self.seconds / reference.seconds, 4),
            "units": round(self.units, 2),
            "units_to_drtune": round(self.units / reference.units, 4),
            "peak_mebibytes": round(self.mebibytes, 1),
        }


def measure_all(names: Sequence[str], threads: Sequence[int], rounds: int) -> list[Cost]:
    """Every method in every round, with every number of threads."""
    found: dict[tuple[str, int], list[Sample]] = {}
    for number, count, name in product(range(rounds), threads, names):
        sample = _in_process(name, count, number)
        found.setdefault((name, count), []).append(sample)
        log.info("round %d, %d threads, %s: %.3f s", number, count, name, sample.seconds_per_image)
    return [Cost(name, count, tuple(samples)) for (name, count), samples in found.items()]


def write(costs: Sequence[Cost]) -> None:
    """The table, the picture, and the facts beside them."""
    references = {cost.threads: cost for cost in costs if cost.name == DRTUNE}
    write_csv(CSV, [cost.row(references[cost.threads]) for cost in costs])
    write_json(CSV.with_suffix(".json"), {"machine": machine(), "goals": goals_of(costs)})
    _draw([cost for cost in costs if cost.threads == min(references)])


def section() -> str:
    """What the document says, from the files of `write`."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    head = ["method", "threads", "s per image", "to DRTune", "units", "units to DRTune", "MiB"]
    keys = ("method", "threads", "seconds_per_image", "to_drtune", "units", "units_to_drtune")
    body = [[row[key] for key in (*keys, "peak_mebibytes")] for row in rows]
    facts = read_json(CSV.with_suffix(".json"))
    parts = [
        described(facts["machine"]),
        markdown_table(head, body),
        "\n".join(_goal_line(goal) for goal in facts["goals"]),
        picture(PICTURE, "Time per image beside the evaluation counts"),
    ]
    return "\n\n".join(part for part in parts if part)


def goals_of(costs: Sequence[Cost]) -> list[dict[str, Any]]:
    """The cost of ShortFT's first stage relative to the methods it has to beat."""
    seconds = {(cost.name, cost.threads): cost.seconds for cost in costs}
    return [
        {
            "to": other,
            "threads": threads,
            "ratio": round(seconds[SHORTFT, threads] / seconds[other, threads], 4),
            "limit": limit,
        }
        for other, limit in GOALS.items()
        for threads in sorted({cost.threads for cost in costs})
        if {(SHORTFT, threads), (other, threads)} <= seconds.keys()
    ]


def _goal_line(goal: Mapping[str, Any]) -> str:
    verdict = "kept" if goal["ratio"] <= goal["limit"] else "missed"
    threads = f"{goal['threads']} thread{'s' if goal['threads'] > 1 else ''}"
    return (
        f"- Stage 1 of ShortFT costs {goal['ratio']:.2f} of {goal['to']} per image with {threads}; "
        f"the goal of {goal['limit']:.2f} is {verdict}."
    )


def _draw(costs: Sequence[Cost]) -> None:
    """Measured seconds and the model's units, both relative to DRTune."""
    reference = next(cost for cost in costs if cost.name == DRTUNE)
    figure, axes = new_figure(9, 7)
    places = range(len(costs), 0, -1)
    measured = [cost.seconds / reference.seconds for cost in costs]
    modelled = [cost.units / reference.units for cost in costs]
    axes.barh(places, measured, height=0.6, label="measured time")
    axes.plot(modelled, places, "k|", markersize=12, label="evaluation counts")
    axes.set_yticks(places, [cost.name for cost in costs])
    axes.set_xlabel("cost per image relative to DRTune, K = 5")
    axes.legend()
    save_figure(figure, PICTURE)


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", choices=VARIANTS, action="append", help="beside the references")
    parser.add_argument("--measure", choices=VARIANTS, help="one sample, as JSON")
    parser.add_argument("--number", type=int, default=0, help="which sample")
    options = parser.parse_args()
    if options.measure:
        sample = measure(options.measure, options.threads[0], options.number)
        sys.stdout.write(json.dumps(asdict(sample)))
        return
    wanted = [*dict.fromkeys([*(options.only or VARIANTS), SHORTFT, DRTUNE, ALIGNPROP])]
    write(measure_all(wanted, options.threads, options.rounds))


if __name__ == "__main__":
    main()
