"""What a pool of reused prefixes saves, and what it does to the reward: one run per pool size."""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from typing import Final

from benchmarks.results import (
    NOT_MEASURED,
    RESULTS,
    STATE,
    described,
    machine,
    markdown_table,
    read_csv,
    read_json,
    write_csv,
    write_json,
)
from benchmarks.updates import BASE, PROMPTS
from shortft_core.events import EvaluationDone, RunFinished, StepMetrics, read_jsonl
from shortft_core.run import RunFolder, run_job
from shortft_core.spec import AlignSpec, Evaluation, PromptSource, ShortFT
from shortft_core.spec.rewards import Preference, Symmetry

log = logging.getLogger("benchmarks")

CSV: Final = RESULTS / "prefix_pool.csv"
POOLS: Final = (0, 8, 32)
UPDATES: Final = 40
SHARES: Final = (0.25, 0.25, 0.25, 0.25)
"""Long later stages, for only those reuse prefixes."""
HELD_OUT: Final = Evaluation(
    prompts=PromptSource(name="shapes-eval"), count=16, seeds=2, every_updates=UPDATES, held_out=()
)


def job(pool: int, seed: int) -> AlignSpec:
    """The same run but for the pool."""
    method = ShortFT(
        rank=16,
        batch_size=4,
        updates=UPDATES,
        warmup_updates=5,
        stage_shares=SHARES,
        prefix_pool=pool,
        merged_rollouts=True,
    )
    rewards = (Symmetry(), Preference(weight=0.1))
    return AlignSpec(
        base_model=BASE,
        method=method,
        rewards=rewards,
        prompts=PROMPTS,
        evaluation=HELD_OUT,
        seed=seed,
    )


def measure(pool: int, seed: int) -> dict[str, object]:
    """Runs one job to its end, and what it cost and reached."""
    folder = RunFolder(STATE / "prefix_pool" / f"{pool}-{seed}")
    shutil.rmtree(folder.path, ignore_errors=True)
    run_job(job(pool, seed), folder, emit=lambda _: None)
    events = list(read_jsonl(folder.events))
    steps = [event for event in events if isinstance(event, StepMetrics) and event.stage > 1]
    last = [event for event in events if isinstance(event, EvaluationDone)][-1]
    done = [event for event in events if isinstance(event, RunFinished)][-1]
    row: dict[str, object] = {
        "pool": pool,
        "seed": seed,
        "seconds_per_update_after_stage_1": round(sum(s.seconds for s in steps) / len(steps), 4),
        "calls_with_gradient": done.evaluations_with_gradient,
        "calls_without_gradient": done.evaluations_without_gradient,
        "base_target": round(last.base["target"].mean, 4),
        "tuned_target": round(last.tuned["target"].mean, 4),
    }
    log.info("%s", row)
    return row


def write(rows: Sequence[dict[str, object]]) -> None:
    """The table and the machine."""
    write_csv(CSV, rows)
    write_json(CSV.with_suffix(".json"), {"updates": UPDATES, "machine": machine()})


def section() -> str:
    """The table of `docs/results.md`."""
    rows = read_csv(CSV)
    if not rows:
        return NOT_MEASURED
    facts = read_json(CSV.with_suffix(".json"))
    table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
    return f"{described(facts['machine'])} {facts['updates']} updates each.\n\n{table}"


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    write([measure(pool, seed) for seed in range(options.seeds) for pool in POOLS])


if __name__ == "__main__":
    main()
