"""Time of an aligned picture beside that of the base model, on the full 50-step chain."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

import torch

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
from benchmarks.updates import BASE, CPU
from shortft_core import models, schedule
from shortft_core.adapters import AdapterBank
from shortft_core.generate import Sampler, base_sampler
from shortft_core.merged import serving_stacks

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "generation.csv"
GOAL: Final = 1.02
"""Most that an aligned picture may cost, relative to one of the base model."""
PROMPT: Final = "a red circle above a blue star on a white background"
RANK: Final = 16
SEGMENTS: Final = 4
UP_SCALE: Final = 1e-2


def samplers(steps: int = 50, batch_size: int = 4) -> dict[str, Sampler]:
    """The base model, and a bank of random branches on ShortFT's chain: merged and unfused."""
    model = models.load(BASE, device=CPU, dtype=torch.float32)
    tuned = models.load(BASE, device=CPU, dtype=torch.float32)
    bank = AdapterBank(tuned.denoiser, branches=SEGMENTS, rank=RANK)
    generator = torch.Generator().manual_seed(0)
    for branch in range(1, SEGMENTS + 1):
        for _, up in bank.weights(branch).values():
            up.copy_(torch.randn(up.shape, generator=generator) * UP_SCALE)
    plan = schedule.inference_plan(
        steps, SEGMENTS, train_timesteps=model.train_timesteps, offset=model.steps_offset
    )
    base = base_sampler(model, steps=steps, batch_size=batch_size)
    aligned = replace(base, model=tuned, plan=plan, bank=bank)
    return {
        "base": base,
        "merged": replace(aligned, stacks=serving_stacks(bank, plan)),
        "unfused": replace(aligned, stacks=bank),
    }


def measure(rounds: int, *, steps: int = 50, batch_size: int = 4) -> dict[str, list[float]]:
    """Seconds per picture of every round; the kinds take turns, and the first turn only warms."""
    made = samplers(steps, batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for number in range(rounds + 1):
        for name, sampler in made.items():
            started = time.perf_counter()
            sampler.images([PROMPT] * batch_size, range(batch_size))
            if number:
                seconds[name].append((time.perf_counter() - started) / batch_size)
    return seconds


def rows_of(seconds: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    """Medians; ratios are medians of each round's own ratio, so that a slow minute cancels."""
    rows: list[dict[str, object]] = []
    for name, taken in seconds.items():
        ratios = [own / base for own, base in zip(taken, seconds["base"], strict=True)]
        rows.append(
            {
                "chain": name,
                "rounds": len(taken),
                "seconds_per_image": round(median(taken), 4),
                "fastest": round(min(taken), 4),
                "slowest": round(max(taken), 4),
                "to_base": round(median(ratios), 4),
                "goal": GOAL if name == "merged" else "",
            }
        )
    return rows


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = rows_of(measure(options.rounds))
    write_csv(CSV, rows)
    write_json(CSV.with_suffix(".json"), {"machine": machine(), "threads": 1})
    log.info("\n%s", section())


def section() -> str:
    """What the document says, from the files of the measurement."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    head = ["chain", "rounds", "s per image", "fastest", "slowest", "to base", "goal"]
    facts = read_json(CSV.with_suffix(".json"))
    table = markdown_table(head, [list(row.values()) for row in rows])
    return f"{described(facts['machine'])}\n\n{table}"


if __name__ == "__main__":
    main()
