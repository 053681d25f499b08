"""One distillation from its specification to its shortcut, in a folder that can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import torch

from shortft_core import catalog, models, prompts, rewards, schedule
from shortft_core.artifacts import LocalStore, atomic_file
from shortft_core.checkpoint import Checkpoints
from shortft_core.device import choose_device, choose_dtype
from shortft_core.distil import jump_lora
from shortft_core.distil.jumps import (
    Pairs,
    jumps_of,
    kept_times,
    naive_error,
    recorded_grid,
    shortened_chain,
)
from shortft_core.distil.report import Examiner
from shortft_core.distil.training import JumpTrainer
from shortft_core.distil.trajectories import Recorder, Recording, load_states, record_all
from shortft_core.errors import UserError
from shortft_core.events import EventSink, LogLine, PhaseStarted, fan_out, jsonl_sink
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.shortcut_card import CARD_FILE, Report, ShortcutCard
from shortft_core.spec import PromptSource
from shortft_core.spec.distil import DistilSpec

Role = Literal["training", "held-out"]
LORA_FILE: Final = "shortcut.safetensors"
REPORT_FILE: Final = "report.png"
SPEC_FILE: Final = "spec.json"
NAIVE_BATCHES: Final = 8
"""Batches on which the unit of each jump's loss is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """A resolved specification with its model; `run_distil` is the way in."""

    spec: DistilSpec
    model: DiffusionModel
    reward: Composite
    """Judges of the report."""
    folder: Path
    emit: EventSink
    should_stop: Callable[[], bool] = lambda: False

    def recorder(self, role: Role) -> Recorder:
        """The trajectories of this job: only the states that its jumps need."""
        kept = kept_times(jumps_of(self.spec, self.model))
        stride = self.spec.trajectory_stride if role == "training" else 1
        return recorder_of(
            self.spec,
            self.model,
            role,
            self.folder / "trajectories" / role,
            timesteps=recorded_grid(grid_of(self.spec, self.model), kept, stride),
            kept=kept,
        )

    def record(self, recorder: Recorder, count: int) -> None:
        """Records what is missing, chunk by chunk."""
        role = recorder.recording.role
        for done in record_all(recorder, count, should_stop=self.should_stop):
            self.emit(LogLine(message=f"{done} of {count} {role} trajectories"))

    def finish(self, training: Pairs, held_out: Pairs) -> Path | None:
        """Trains on recorded trajectories, reports and writes; None if stopped before the end."""
        self.emit(PhaseStarted(phase="training"))
        trainer = self._trainer(training)
        trainer.run()
        if not trainer.complete:
            return None
        self.emit(PhaseStarted(phase="report"))
        path = self.folder / LORA_FILE
        trainer.lora.write(path, trainer.average)
        report = self._examine(jump_lora.merged(self.model, path), held_out)
        self._write_card(report)
        for line in report.missed_goals() or ("every goal is reached",):
            self.emit(LogLine(message=f"report: {line}"))
        return self.folder

    def _trainer(self, pairs: Pairs) -> JumpTrainer:
        return JumpTrainer(
            spec=self.spec,
            lora=jump_lora.attach(self.model, rank=self.spec.rank, seed=self.spec.seed),
            jumps=jumps_of(self.spec, self.model),
            naive_errors=self._naive_errors(pairs),
            pairs=pairs,
            checkpoints=Checkpoints(
                LocalStore(self.folder), self.spec.sha256(), self.model.fingerprint
            ),
            emit=self.emit,
            should_stop=self.should_stop,
        )

    def _naive_errors(self, pairs: Pairs) -> list[float]:
        """Of guided DDIM jumps of the base model, on the first trajectories."""
        rows = range(min(self.spec.batch_size * NAIVE_BATCHES, len(pairs.states)))
        batches = [rows[i : i + self.spec.batch_size] for i in rows[:: self.spec.batch_size]]
        guidance_scale = guidance_of(self.spec)
        return [
            naive_error(self.model, pairs, jump, guidance_scale, batches)
            for jump in jumps_of(self.spec, self.model)
        ]

    def pairs(self, recorder: Recorder, count: int) -> Pairs:
        """The first `count` trajectories of a recorder, as pairs for the jumps of this job."""
        times = kept_times(jumps_of(self.spec, self.model))
        return Pairs(
            states=load_states(recorder.folder, recorder.recording, times, count),
            times=times,
            prompt=recorder.prompt,
            alphas_cumprod=self.model.alphas_cumprod,
        )

    def _examine(self, student: DiffusionModel, held_out: Pairs) -> Report:
        report, picture = Examiner(
            base=self.model,
            student=student,
            chain=shortened_chain(self.spec, self.model),
            jumps=jumps_of(self.spec, self.model),
            guidance_scale=guidance_of(self.spec),
            pairs=held_out,
            batch_size=self.spec.batch_size,
        ).report(self.reward)
        png = BytesIO()
        picture.save(png, format="PNG")
        with atomic_file(self.folder / REPORT_FILE) as file:
            file.write(png.getvalue())
        return report

    def _write_card(self, report: Report) -> None:
        spec, model = self.spec, self.model
        data = (self.folder / LORA_FILE).read_bytes()
        card = ShortcutCard(
            kind="few_step" if spec.few_step else "shortcut",
            base_model=spec.base_model,
            base_sha256=model.fingerprint,
            steps=spec.steps,
            segments=spec.segments,
            timesteps=grid_of(spec, model),
            steps_offset=model.steps_offset,
            guidance_scale=guidance_of(spec),
            jumps=jumps_of(spec, model),
            rank=spec.rank,
            file=LORA_FILE,
            sha256=hashlib.sha256(data).hexdigest(),
            report=report,
            spec_sha256=spec.sha256(),
        )
        with atomic_file(self.folder / CARD_FILE) as file:
            file.write((card.model_dump_json(indent=2) + "\n").encode())


def grid_of(spec: DistilSpec, model: DiffusionModel) -> tuple[int, ...]:
    """The DDIM grid of the full chain."""
    return schedule.ddim_grid(spec.steps, model.train_timesteps, model.steps_offset)


def guidance_of(spec: DistilSpec) -> float:
    """The guidance that the jumps absorb: the one given, or the base model's own."""
    if spec.guidance_scale is not None:
        return spec.guidance_scale
    return catalog.tuning(spec.base_model).guidance_scale


def recorder_of(
    spec: DistilSpec,
    model: DiffusionModel,
    role: str,
    folder: Path,
    *,
    timesteps: tuple[int, ...],
    kept: tuple[int, ...],
) -> Recorder:
    """The recorder of one role; jobs that share all but the folder share trajectories."""
    training, held_out = prompt_sources(spec)
    if role == "held-out":
        prompt_set = prompts.load(held_out, field="evaluation.prompts")
    else:
        prompt_set = prompts.load(training)
    recording = Recording(
        base_sha256=model.fingerprint,
        timesteps=timesteps,
        guidance_scale=guidance_of(spec),
        prompts_sha256=prompt_set.sha256,
        seed=spec.seed,
        role=role,
        kept=kept,
    )
    return Recorder(
        model=model,
        prompts=prompt_set.prompts,
        recording=recording,
        folder=folder,
        batch_size=spec.batch_size,
    )


def prompt_sources(spec: DistilSpec) -> tuple[PromptSource, PromptSource]:
    """Prompts to learn and to measure on: the held-out ones given, or the evaluation split."""
    if spec.evaluation.prompts is not None:
        return spec.prompts, spec.evaluation.prompts
    return (
        spec.prompts.model_copy(update={"split": "train"}),
        spec.prompts.model_copy(update={"split": "eval"}),
    )


def run_distil(
    spec: DistilSpec,
    folder: Path,
    *,
    emit: EventSink,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Records, trains, measures; returns the folder of `shortcut.safetensors` and its card.

    None means stopped: run it again to resume. Raises UserError for what the specification asks
    in vain, DivergedError for broken numbers.
    """
    _refuse_other(spec, folder)
    device = choose_device()
    model = models.load(spec.base_model, device=device, dtype=choose_dtype(device))
    job = Distillation(
        spec=spec,
        model=model,
        reward=judges(spec, device),
        folder=folder,
        emit=fan_out(jsonl_sink(folder / "events.jsonl"), emit),
        should_stop=should_stop,
    )
    training, held_out = job.recorder("training"), job.recorder("held-out")
    # Claimed only now: a specification that names a wrong path can be corrected and run again.
    with atomic_file(folder / SPEC_FILE) as file:
        file.write(_stored(spec).encode())
    job.emit(PhaseStarted(phase="trajectories"))
    wanted = ((training, spec.trajectories), (held_out, spec.evaluation.count))
    for recorder, count in wanted:
        job.record(recorder, count)
    if should_stop():
        return None
    return job.finish(*(job.pairs(recorder, count) for recorder, count in wanted))


def judges(spec: DistilSpec, device: torch.device) -> Composite:
    """The rewards of the report, with the weights that belong to the base model."""
    field = "evaluation.rewards"
    terms = [
        catalog.resolve_reward(term, spec.base_model, f"{field}.{index}")
        for index, term in enumerate(spec.evaluation.rewards)
    ]
    return rewards.build(terms, device=device, dtype=choose_dtype(device), field=field)


def _refuse_other(spec: DistilSpec, folder: Path) -> None:
    path = folder / SPEC_FILE
    if path.exists() and path.read_text(encoding="utf-8") != _stored(spec):
        raise UserError(
            "run folder", f"{folder} holds a run of another specification", "Name another folder"
        )


def _stored(spec: DistilSpec) -> str:
    return spec.model_dump_json(indent=2) + "\n"
