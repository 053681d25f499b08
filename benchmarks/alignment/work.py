"""Runs one cell: trains or resumes its job, then looks at the finished model."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Final

import torch
from torch import Tensor

from benchmarks.alignment import records
from benchmarks.alignment.availability import distilled_model
from benchmarks.alignment.budget import Calibration
from benchmarks.alignment.cells import (
    BASE_MODEL,
    HELD_OUT_PROMPTS,
    SETTINGS,
    Cell,
    Folders,
    spec_of,
)
from benchmarks.alignment.pictures import save_pairs
from benchmarks.alignment.records import Point, Record
from benchmarks.alignment.sweep import chosen_rate
from benchmarks.results import machine
from shortft_core import catalog, models, prompts, rewards, shortcuts
from shortft_core.errors import DivergedError
from shortft_core.evaluate import Panel, Scores
from shortft_core.events import AlertRaised, EvaluationDone, Event, EventSink, read_jsonl
from shortft_core.export import load_adapter
from shortft_core.generate import Sampler, base_sampler
from shortft_core.models import DiffusionModel
from shortft_core.run import RunFolder, held_out_judges, run_job
from shortft_core.sampling import derive_seed
from shortft_core.schedule import few_step_plan
from shortft_core.spec import AlignSpec, Source

JUDGES: Final = (
    "hps_v2",
    "pickscore",
    "aesthetic",
    "symmetry",
    "compressibility",
    "oracle",
)
"""Every bundled judge; those that are not optimized tell what the target cost. `clipscore` is left
out: on the bundled model its weights are those of `pickscore`."""
CPU: Final = torch.device("cpu")
FINAL_BATCH: Final = 8


def ignore(event: Event) -> None:
    """The run folder keeps the events; nobody else has to hear them."""


@contextmanager
def claimed(cell: Cell, folders: Folders) -> Iterator[bool]:
    """Whether this process may work on the cell; the lock ends with the process in any case."""
    folder = folders.run(cell)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def run_cell(cell: Cell, folders: Folders, *, emit: EventSink = ignore) -> Record:
    """The record of the cell, found or made; a half-done run continues from its checkpoint."""
    finished = records.read(folders.record(cell))
    if finished is not None:
        return finished
    torch.set_num_threads(1)
    record = _untuned(cell, folders) if cell.is_untuned else _tuned(cell, folders, emit)
    records.write(folders.record(cell), record)
    return record


def _untuned(cell: Cell, folders: Folders) -> Record:
    model = _load()
    sampler = base_sampler(model) if cell.variant == "base" else _few_step(model)
    record = Record(setting=cell.setting, variant=cell.variant, seed=cell.seed)
    return _judged(record, cell, sampler, folders)


def _tuned(cell: Cell, folders: Folders, emit: EventSink) -> Record:
    calibration = Calibration.read(folders.calibration)
    rate = cell.learning_rate or chosen_rate(cell.variant, folders)
    if rate is None:
        raise ValueError(f"{cell.name} has no learning rate: finish the sweep first")
    updates = calibration.updates_for(cell)
    spec, folder = spec_of(cell, updates, rate), RunFolder(folders.run(cell) / "run")
    record = Record(
        setting=cell.setting,
        variant=cell.variant,
        seed=cell.seed,
        learning_rate=rate,
        updates=updates,
        budget_seconds=round(calibration.budget_seconds(cell.budget_share), 2),
        spec_sha256=catalog.resolve(spec).sha256(),
    )
    try:
        run_job(spec, folder, emit=emit)
    except DivergedError:
        # A method that breaks at the best rate of its sweep has lost; that is a result too.
        record = record.model_copy(update={"outcome": "diverged"})
    record = record.model_copy(update=_history(spec, folder, calibration, cell))
    if record.outcome == "diverged":
        return record
    sampler = load_adapter(folder.adapter, _load(), batch_size=FINAL_BATCH)
    return _judged(record, cell, sampler, folders)


def _history(
    spec: AlignSpec, folder: RunFolder, calibration: Calibration, cell: Cell
) -> dict[str, object]:
    """The curve and the alarms; what a resumed run evaluated again counts once."""
    done: dict[int, EvaluationDone] = {}
    alerts: dict[tuple[int, str], None] = {}
    for event in read_jsonl(folder.events):
        if isinstance(event, EvaluationDone):
            done[event.update] = event
        elif isinstance(event, AlertRaised):
            alerts[event.update, event.kind] = None
    updates = spec.method.updates or 0
    points = tuple(
        Point(
            update=update,
            seconds=round(calibration.seconds_after(cell.variant, update, updates), 2),
            base={judge: round(score.mean, 6) for judge, score in event.base.items()},
            tuned={judge: round(score.mean, 6) for judge, score in event.tuned.items()},
        )
        for update, event in sorted(done.items())
    )
    return {"curve": points, "alerts": tuple(f"{kind}@{update}" for update, kind in alerts)}


def _judged(record: Record, cell: Cell, sampler: Sampler, folders: Folders) -> Record:
    """The record with the final evaluation, on prompts and seeds that all cells share."""
    panel = final_panel(cell)
    scores = panel.score(sampler)
    save_pairs(cell, folders, scores.images, panel.prompts)
    return record.model_copy(
        update={
            "scores": {
                judge: tuple(round(value, 6) for value in values.tolist())
                for judge, values in scores.judges.items()
            },
            "diversity": round(_diversity(scores, panel.prompts), 6),
            "model_sha256": sampler.model.fingerprint,
            "machine": machine(),
        }
    )


def final_panel(cell: Cell) -> Panel:
    """The prompts and seeds of the final evaluation: equal for all cells of a table."""
    known = prompts.load(HELD_OUT_PROMPTS).prompts
    chosen = known[cell.scale.final_slice(sweep=cell.is_sweep)]
    pairs = [(prompt, number) for prompt in chosen for number in range(cell.scale.final_seeds)]
    terms = [catalog.resolve_reward(term, BASE_MODEL, "rewards") for term in SETTINGS[cell.setting]]
    reward = rewards.build(terms, device=CPU, dtype=torch.float32)
    optimized = {part.name for part, _ in reward.parts}
    others = [judge for judge in JUDGES if judge not in optimized]
    return Panel(
        prompts=tuple(prompt for prompt, _ in pairs),
        seeds=tuple(derive_seed("alignment", *pair) for pair in pairs),
        reward=reward,
        held_out=held_out_judges(others, BASE_MODEL, CPU, torch.float32),
    )


def _diversity(scores: Scores, names: Sequence[str]) -> float:
    """Mean over prompts of the mean RMS pixel difference between two images of one prompt."""
    by_prompt: dict[str, list[Tensor]] = {}
    for name, image in zip(names, scores.images, strict=True):
        by_prompt.setdefault(name, []).append(image)
    return fmean(_mean_distance(torch.stack(images)) for images in by_prompt.values())


def _mean_distance(images: Tensor) -> float:
    """Mean over all pairs of images [N, 3, H, W] of their RMS difference."""
    flat = images.flatten(1)
    rms: float = torch.pdist(flat).mean().item() / math.sqrt(flat.shape[1])
    return rms


def _load() -> DiffusionModel:
    return models.load(BASE_MODEL, device=CPU, dtype=torch.float32)


def _few_step(model: DiffusionModel) -> Sampler:
    """The few-step model on its own four calls, as `direct` begins."""
    name = distilled_model("few_step")
    merged = shortcuts.few_step(Source(name=name), model, segments=4)
    plan = few_step_plan(
        4,
        spacing=merged.spacing,
        train_timesteps=model.train_timesteps,
        offset=model.steps_offset,
    )
    return Sampler(model=merged.model, plan=plan, guidance_scale=merged.guidance_scale)
