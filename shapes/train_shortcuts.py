"""Distils the bundled shortcuts and the few-step generator of `shapes-base`.

All of them learn from the same full trajectories, which are recorded once.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from shapes.training import STATE_FOLDER
from shortft_core import models, schedule
from shortft_core.distil.jumps import Pairs, jumps_of, kept_times, recorded_grid
from shortft_core.distil.run import (
    LORA_FILE,
    REPORT_FILE,
    Distillation,
    grid_of,
    guidance_of,
    judges,
    recorder_of,
)
from shortft_core.distil.trajectories import Recorder
from shortft_core.events import DistilMetrics, Event, LogLine
from shortft_core.models import DiffusionModel
from shortft_core.shortcut_card import CARD_FILE, ShortcutCard, read_card
from shortft_core.spec import AnyReward, PromptSource, Source
from shortft_core.spec.distil import DistilEvaluation, DistilSpec
from shortft_core.spec.rewards import reward_term
from shortft_core.weights import BUNDLED

log = logging.getLogger("shapes")

CARD: Final = Path(__file__).parent / "cards" / "shortcuts.json"
CHUNK: Final = 32
"""Trajectories in one file."""
TRAJECTORIES: Final = {"held-out": 128, "training": 2048, "coarse": 3072}
"""`coarse` are cheaper by stride and serve most jobs beside the exact ones."""
COARSE_STRIDE: Final = 3
COARSE_JOBS: Final = ("shapes-shortcut/k4", "shapes-fewstep/k4", "shapes-shortcut/k2")
SHAPES: Final = Source(name="shapes")
REWARDS: Final[tuple[AnyReward, ...]] = (
    reward_term("hps_v2", SHAPES),
    reward_term("pickscore", SHAPES),
    reward_term("clipscore", SHAPES),
    reward_term("aesthetic", SHAPES),
    reward_term("symmetry"),
    reward_term("compressibility"),
    reward_term("brightness"),
    reward_term("colorfulness"),
)


def spec_of(segments: int, *, few_step: bool = False, **changes: Any) -> DistilSpec:
    """The job behind one bundled file; about 36 pairs an update, whatever the number of jumps."""
    jumps = segments if few_step else segments - 1
    options = {
        "rank": 5,
        "trajectories": 2048 + 3072,
        "updates": 1500,
        "learning_rate": 3e-3,
        "batch_size": 36 // jumps,
    }
    return DistilSpec(
        base_model=SHAPES,
        segments=segments,
        few_step=few_step,
        prompts=PromptSource(name="shapes-train"),
        evaluation=DistilEvaluation(
            prompts=PromptSource(name="shapes-eval"), count=128, rewards=REWARDS
        ),
        seed=701,
        **{**options, **changes},
    )


JOBS: Final[dict[str, DistilSpec]] = {
    "shapes-shortcut/k4": spec_of(4, rank=16),
    "shapes-fewstep/k4": spec_of(4, few_step=True, rank=12),
    "shapes-shortcut/k2": spec_of(2, updates=400),
}


def recorder(spec: DistilSpec, model: DiffusionModel, role: str) -> Recorder:
    """The recorder of one role, which the jobs of this file share."""
    grid = grid_of(spec, model)
    times = kept_times([jump for job in COARSE_JOBS for jump in jumps_of(JOBS[job], model)])
    coarse = recorded_grid(grid, times, COARSE_STRIDE)
    return recorder_of(
        spec.model_copy(update={"batch_size": CHUNK}),
        model,
        role,
        STATE_FOLDER / "trajectories" / role,
        timesteps=coarse if role == "coarse" else grid,
        kept=times if role == "coarse" else (*grid, schedule.CLEAN),
    )


def record(job: Distillation, part: int, parts: int) -> None:
    """Records every `parts`-th missing chunk, beginning with number `part`."""
    for role, count in TRAJECTORIES.items():
        wanted = recorder(job.spec, job.model, role)
        missing = set(wanted.missing(count))
        for first in range(part * CHUNK, count, parts * CHUNK):
            if first in missing:
                wanted.record(first, count)
                log.info("%s trajectories %d to %d", role, first, first + CHUNK - 1)


def training_pairs(name: str, job: Distillation) -> Pairs:
    """The exact trajectories, and the coarse ones where they hold the ends of the jumps."""
    roles = ("training", "coarse") if name in COARSE_JOBS else ("training",)
    parts = [pairs_of(job, role) for role in roles]
    prompts = [part.prompt(row) for part in parts for row in range(len(part.states))]
    return replace(
        parts[0], states=torch.cat([part.states for part in parts]), prompt=prompts.__getitem__
    )


def pairs_of(job: Distillation, role: str) -> Pairs:
    """All recorded trajectories of one role."""
    return job.pairs(recorder(job.spec, job.model, role), TRAJECTORIES[role])


def distil(name: str, job: Distillation) -> None:
    """Trains one job and puts its file, card and picture in place."""
    folder = job.finish(training_pairs(name, job), pairs_of(job, "held-out"))
    assert folder is not None  # noqa: S101 - nothing asks it to stop
    to = BUNDLED / name
    to.parent.mkdir(parents=True, exist_ok=True)
    card = read_card(folder / CARD_FILE).model_copy(update={"file": f"{to.name}.safetensors"})
    shutil.copyfile(folder / LORA_FILE, to.with_suffix(".safetensors"))
    to.with_suffix(".json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(folder / REPORT_FILE, CARD.with_name(f"{to.parent.name}-{to.name}.png"))


def figures(name: str, card: ShortcutCard, spec: DistilSpec) -> dict[str, Any]:
    """What the model card says of one file."""
    report = card.report
    return {
        "recipe": spec.model_dump(
            mode="json", include={"rank", "trajectories", "updates", "learning_rate", "batch_size"}
        ),
        "guidance_scale": guidance_of(spec),
        "bytes": (BUNDLED / f"{name}.safetensors").stat().st_size,
        "sha256": card.sha256,
        "held_out_trajectories": report.trajectories,
        "error_to_guided_naive": round(report.rms_ratio, 4),
        "error_to_unguided_naive": round(report.unguided_rms_ratio, 4),
        "jumps": {
            f"{jump.timestep} -> {jump.next_timestep}": round(jump.ratio, 4)
            for jump in report.jumps
        },
        "image_rmse": round(report.image_rmse, 4),
        "naive_image_rmse": round(report.naive_image_rmse, 4),
        "reward_shifts_in_std": {n: round(s.shift, 4) for n, s in report.rewards.items()},
        "naive_reward_shifts_in_std": {
            n: round(s.naive_shift, 4) for n, s in report.rewards.items()
        },
        "missed_goals": list(report.missed_goals()),
    }


def write_figures() -> None:
    """Collects the cards of all files that exist into `shapes/cards/shortcuts.json`."""
    found = {
        "coarse_trajectories": TRAJECTORIES["coarse"],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "files": {
            name: figures(name, read_card(BUNDLED / f"{name}.json"), spec)
            for name, spec in JOBS.items()
            if (BUNDLED / f"{name}.json").exists()
        },
    }
    CARD.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def logged(name: str) -> Callable[[Event], None]:
    """A sink that writes lines about the job to the log."""

    def emit(event: Event) -> None:
        if isinstance(event, LogLine):
            log.info("%s %s", name, event.message)
        elif isinstance(event, DistilMetrics):
            errors = ", ".join(f"{jump} {error:.3f}" for jump, error in event.errors.items())
            log.info(
                "%s update %d of %d: error to naive %s", name, event.update, event.updates, errors
            )

    return emit


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=JOBS, action="append", help="files to make; default all")
    parser.add_argument("--record", metavar="PART/PARTS", help="record trajectories only")
    options = parser.parse_args()
    model = models.load(SHAPES, device=torch.device("cpu"), dtype=torch.float32)
    reward = judges(JOBS["shapes-shortcut/k4"], model.device)
    part, parts = map(int, (options.record or "0/1").split("/"))
    for name in options.only or JOBS:
        folder = STATE_FOLDER / "distil" / name
        job = Distillation(
            spec=JOBS[name], model=model, reward=reward, folder=folder, emit=logged(name)
        )
        record(job, part, parts)
        if options.record:
            return
        distil(name, job)
        write_figures()


if __name__ == "__main__":
    main()
