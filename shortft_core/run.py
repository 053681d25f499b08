"""One job from its specification to its adapter, in a folder that can be resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from shortft_core import catalog, methods, models, prompts, rewards, shortcuts
from shortft_core.adapter_card import Origin
from shortft_core.artifacts import LocalStore, atomic_file
from shortft_core.checkpoint import Checkpoints, Manifest, checkpoint_folder
from shortft_core.device import choose_dtype
from shortft_core.errors import UserError
from shortft_core.evaluate import Evaluator, Panel
from shortft_core.events import Event, EventSink, LogLine, PhaseStarted, fan_out, jsonl_sink
from shortft_core.export import noise_schedule, save_adapter
from shortft_core.generate import Sampler
from shortft_core.methods import Method
from shortft_core.parallel import choose_accelerator
from shortft_core.rewards import Composite, Reward
from shortft_core.sampling import derive_seed
from shortft_core.spec import AlignSpec, Source
from shortft_core.spec.rewards import reward_term
from shortft_core.trainer import StopSignal, Trainer


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run keeps everything: specification, events, checkpoints, samples, adapters."""

    path: Path

    @property
    def adapter(self) -> Path:
        """The tuned branches as they are at the end."""
        return self.path / "adapter"

    @property
    def best(self) -> Path:
        """The branches with the highest target whose held-out judges have not fallen."""
        return self.path / "best"

    @property
    def events(self) -> Path:
        """One JSON envelope per line."""
        return self.path / "events.jsonl"

    def clear(self) -> None:
        """Forgets an earlier run, and nothing else that lies in the folder."""
        for folder in ("adapter", "best", "checkpoints", "samples"):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        for file in (self.events, self.spec, self.path / "report.html"):
            file.unlink(missing_ok=True)

    @property
    def spec(self) -> Path:
        """The resolved specification that the run follows."""
        return self.path / "spec.json"

    def refuse_other(self, spec: AlignSpec) -> None:
        """Raises UserError if the folder belongs to another specification."""
        if self.spec.exists() and _read_stored(self.spec) != spec:
            raise UserError(
                "run folder",
                f"{self.path} holds a run of another specification",
                f"Name another folder, or run {self.spec}",
            )

    def claim(self, spec: AlignSpec) -> None:
        """Stores the specification."""
        with atomic_file(self.spec) as file:
            file.write((spec.model_dump_json(indent=2) + "\n").encode())


def _read_stored(path: Path) -> AlignSpec:
    try:
        return AlignSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            "run folder", f"{path} is not a specification of this version", "Name another folder"
        ) from error


def run_job(
    spec: AlignSpec,
    folder: RunFolder,
    *,
    emit: EventSink,
    should_stop: StopSignal = lambda: False,
    save_adapters: bool = False,
) -> Manifest:
    """Trains or resumes the job, and writes `adapter/` and `best/`. Returns the final state.

    With `save_adapters`, each checkpoint holds the adapter of its update. Raises UserError for what
    the specification asks in vain, DivergedError for broken numbers.
    """
    spec = catalog.resolve(spec)
    folder.refuse_other(spec)
    prompt_set, panel_prompts = prompts.load(spec.prompts), _panel_prompts(spec)
    accelerator, device = choose_accelerator()
    if not accelerator.is_main_process:
        emit = _say_nothing
    emit(PhaseStarted(phase="preparing"))
    job = _load(spec, panel_prompts, device)
    # Claimed only now: a specification that names a wrong path can be corrected and run again.
    if accelerator.is_main_process:
        folder.claim(spec)
        emit = fan_out(jsonl_sink(folder.events), emit)
    known = [f"prompts: {warning}" for warning in prompt_set.warnings()]
    for message in (*known, *_warnings(spec, job.method, prompt_set.prompts)):
        emit(LogLine(level="warn", message=message))
    trainer = Trainer(
        spec=spec,
        method=job.method,
        prompts=prompt_set.prompts,
        evaluator=job.evaluator(spec, folder, emit, should_stop),
        checkpoints=job.checkpoints(spec, folder),
        emit=emit,
        should_stop=should_stop,
        save_adapter=job.saver(folder) if save_adapters else None,
        accelerator=accelerator,
    )
    state = trainer.run()
    if state.update and accelerator.is_main_process:
        with trainer.averaged():
            job.publish(folder.adapter)
    return state


@dataclass(frozen=True, slots=True)
class _Job:
    """The loaded models of a job."""

    method: Method
    panel: Panel
    origin: Origin

    def evaluator(
        self, spec: AlignSpec, folder: RunFolder, emit: EventSink, should_stop: StopSignal
    ) -> Evaluator:
        """Scores the tuned model on the panel, and keeps the best one."""
        return Evaluator(
            panel=self.panel,
            tuned=_sampler(spec, self.method),
            guard=spec.guard,
            store=LocalStore(folder.path),
            emit=emit,
            on_best=lambda: self.publish(folder.best),
            should_stop=should_stop,
        )

    def checkpoints(self, spec: AlignSpec, folder: RunFolder) -> Checkpoints:
        """Those of the run folder, for this specification and these models."""
        fingerprint = self.method.model.fingerprint
        return Checkpoints(
            LocalStore(folder.path), spec.sha256(), fingerprint, self.origin.shortcut_sha256
        )

    def saver(self, folder: RunFolder) -> Callable[[int], None]:
        """What puts the adapter of an update into the folder of its checkpoint."""
        return lambda update: self.publish(folder.path / checkpoint_folder(update) / "adapter")

    def publish(self, folder: Path) -> None:
        """Writes the branches as they are now."""
        method = self.method
        schedule = noise_schedule(method.model, method.inference_plan)
        origin = self.origin.model_copy(update={"noise_schedule": schedule})
        save_adapter(folder, method.bank, method.inference_plan, origin)


def _load(spec: AlignSpec, panel_prompts: Sequence[tuple[str, int]], device: torch.device) -> _Job:
    dtype = choose_dtype(device, spec.method.precision, merged=spec.method.merged_rollouts)
    model = models.load(spec.base_model, device=device, dtype=dtype)
    base_sha256, init_sha256 = model.fingerprint, None
    if spec.method.init_adapter is not None:
        model, init_sha256 = shortcuts.with_lora(spec.method.init_adapter, model)
    reward = rewards.build(spec.rewards, device=device, dtype=dtype)
    held_out = held_out_judges(spec.evaluation.held_out or (), spec.base_model, device, dtype)
    method = methods.build(spec.method, model=model, reward=reward, seed=spec.seed)
    panel = _panel(spec, panel_prompts, reward, held_out)
    return _Job(method, panel, _origin(spec, method, base_sha256, init_sha256))


def _say_nothing(event: Event) -> None:
    """Where the other processes of a run on several devices report to: the main one speaks."""


def _warnings(spec: AlignSpec, method: Method, texts: Sequence[str]) -> Iterator[str]:
    """What a user should know of a job that can be run all the same."""
    too_long = method.model.overlong(texts)
    if too_long:
        count, first = len(too_long), too_long[0]
        yield f"prompts: {count} exceed the token limit and are truncated, first {first!r}"
    if spec.method.init_adapter and method.shortcut and method.shortcut.jumps:
        yield "method.shortcut: it stands for the base model without init_adapter"


def held_out_judges(
    names: Sequence[str], base_model: Source, device: torch.device, dtype: torch.dtype
) -> dict[str, Reward]:
    """The judges of `evaluation.held_out`, with the weights that belong to the base model."""
    judges: dict[str, Reward] = {}
    for index, name in enumerate(names):
        if name == catalog.ORACLE:
            judges[name] = catalog.load(catalog.ORACLE_TARGET)(device=device, dtype=dtype)
            continue
        field = f"evaluation.held_out.{index}"
        term = catalog.resolve_reward(reward_term(name), base_model, field)
        judges[name] = rewards.build([term], device=device, dtype=dtype, field=field)
    return judges


def _panel_prompts(spec: AlignSpec) -> list[tuple[str, int]]:
    """The first `count` held-out prompts, each with the numbers of its `seeds` seeds."""
    wanted = spec.evaluation
    assert wanted.prompts is not None  # noqa: S101 - resolve() filled it
    chosen = prompts.load(wanted.prompts, field="evaluation.prompts").prompts[: wanted.count]
    return [(prompt, number) for prompt in chosen for number in range(wanted.seeds)]


def _panel(
    spec: AlignSpec,
    pairs: Sequence[tuple[str, int]],
    reward: Composite,
    held_out: Mapping[str, Reward],
) -> Panel:
    return Panel(
        prompts=tuple(prompt for prompt, _ in pairs),
        seeds=tuple(derive_seed(spec.seed, "panel", *pair) for pair in pairs),
        reward=reward,
        held_out=held_out,
    )


def _sampler(spec: AlignSpec, method: Method) -> Sampler:
    return Sampler(
        model=method.model,
        plan=method.inference_plan,
        guidance_scale=method.guidance_scale,
        bank=method.bank,
        batch_size=spec.method.batch_size,
        adapter={"spec_sha256": spec.sha256()},
    )


def _origin(
    spec: AlignSpec, method: Method, base_sha256: str, init_adapter_sha256: str | None
) -> Origin:
    shortcut, few_step = method.shortcut, method.few_step
    return Origin(
        base_model=spec.base_model,
        base_sha256=base_sha256,
        method=spec.method.type,
        guidance_scale=method.guidance_scale,
        rewards=tuple(reward.name for reward in spec.rewards),
        reward_weights=tuple(reward.weight for reward in spec.rewards),
        spec_sha256=spec.sha256(),
        segments=getattr(spec.method, "segments", None),
        shortcut=shortcut.source if shortcut else None,
        shortcut_sha256=shortcut.sha256 if shortcut else None,
        few_step=few_step.source if few_step else None,
        few_step_sha256=few_step.sha256 if few_step else None,
        init_adapter=spec.method.init_adapter,
        init_adapter_sha256=init_adapter_sha256,
    )
