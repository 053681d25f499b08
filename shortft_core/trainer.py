"""The training loop: step, report, evaluate, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import fmean
from typing import Final, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from shortft_core.checkpoint import Checkpoints, Manifest
from shortft_core.device import peak_memory_bytes
from shortft_core.ema import Ema
from shortft_core.errors import DivergedError, StoppedError
from shortft_core.evaluate import Evaluator
from shortft_core.events import (
    AlertRaised,
    EventSink,
    PhaseStarted,
    RunFinished,
    RunStarted,
    StepMetrics,
)
from shortft_core.methods import Batch, Method, Outcome
from shortft_core.parallel import MethodLoss, any_process, choose_accelerator, decide, gathered
from shortft_core.sampling import derive_seed
from shortft_core.schedule import forward_units, leash_calls
from shortft_core.spec import AlignSpec, ShortFT, resolved
from shortft_core.stages import PLATEAU_UPDATES, has_plateaued, stage_starts

CALIBRATION_UPDATES: Final = 3
"""Updates that turn `method.seconds` into a number of updates, once."""

StopSignal = Callable[[], bool]
"""True when the run shall stop after the current update."""


@dataclass(kw_only=True)
class Trainer:
    """One run of one job; everything random follows from (seed, update, index)."""

    spec: AlignSpec
    method: Method
    prompts: Sequence[str]
    evaluator: Evaluator
    checkpoints: Checkpoints
    emit: EventSink
    should_stop: StopSignal = lambda: False
    save_adapter: Callable[[int], None] | None = None
    """Puts the adapter of an update into the folder of its checkpoint."""
    accelerator: Accelerator = field(default_factory=lambda: choose_accelerator()[0])
    state: Manifest = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        options = self.spec.method
        self._peak = resolved(options.learning_rate, "learning_rate")
        self._parts = resolved(options.accumulation, "accumulation")
        self.optimizer = torch.optim.AdamW(
            self._parameters(), lr=self._peak, weight_decay=options.weight_decay
        )
        self.average = Ema(self._parameters(), options.ema_decay or 0.0)
        fresh = self.checkpoints.fresh(options.updates, self._starts(options.updates))
        self.state = self.checkpoints.resume(*self._training()) or fresh
        self._evaluated = self.state.update - self.state.evaluation_due
        self._saved = self.state
        self._paused = False
        self._durations: list[float] = []
        self._enter(self.state.stage)

    def run(self) -> Manifest:
        """Trains until done, stopped or out of time. Returns the state it ended in.

        Raises DivergedError before the optimizer moves on a loss or gradient that is not finite.
        """
        self._began = time.monotonic() - self.state.seconds
        self.emit(self._started())
        try:
            self._loop()
        except DivergedError:
            self.emit(self._finished("failed"))
            raise
        self.emit(self._finished("completed" if self.state.is_complete else "stopped"))
        return self.state

    def _loop(self) -> None:
        # First, so that a judge that cannot serve fails now and not an hour later.
        self._prepare()
        if self.state.evaluation_due:
            self._evaluate()
        while not self._ended():
            self._change_stage()
            started = time.monotonic()
            outcomes, norms = self._update()
            self._advance(outcomes, time.monotonic() - started)
            self.emit(self._metrics(outcomes, norms))
            if self.state.update % self.spec.evaluation.every_updates == 0:
                self._evaluate()
            # The last state is saved below, with its evaluation: a kill between would lose that.
            if self.state.update % self.spec.method.checkpoint_every == 0 and not self._complete():
                self._save()
        if self._complete() or any_process(self.accelerator, self._out_of_time()):
            self._evaluate()
        self._save()

    def _update(self) -> tuple[list[Outcome], dict[int, float]]:
        """Accumulated gradients, averaged over devices, clipped per branch; one step of AdamW."""
        self.optimizer.zero_grad(set_to_none=True)
        outcomes, parts = [], self._parts
        for part in range(parts):
            last = part == parts - 1
            with nullcontext() if last else self.accelerator.no_sync(self._loss):
                outcome = self._loss(self._batch(part))
                self._require_finite("loss", outcome.loss.item())
                (outcome.loss / parts).backward()
            outcomes.append(outcome)
        norms = {branch: self._clip(branch) for branch in self.method.trained_branches()}
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        self.average.update(self.state.update)
        return outcomes, norms

    def _prepare(self) -> None:
        """Scores the base model, and draws the threshold from it where the job leaves it open."""
        threshold = None
        if self.accelerator.is_main_process:
            # Told to stop: no update follows that could miss the threshold.
            with suppress(StoppedError):
                self.evaluator.prepare()
                threshold = self.evaluator.auto_threshold()
        threshold = decide(self.accelerator, threshold)
        if self.spec.method.reward_threshold == "auto":
            self.method.objective.threshold = threshold

    def _change_stage(self) -> None:
        """Enters the stage that begins with this update: what is no longer trained freezes."""
        stage = self.state.stage
        if stage == len(self.state.stage_starts):
            return
        if self.state.update < self.state.stage_starts[stage]:
            return
        before = self.method.trained_branches()
        self._enter(stage + 1)
        for branch in set(before) - set(self.method.trained_branches()):
            self.average.freeze(self.method.bank.parameters(branch))
        self._set(stage=stage + 1, stage_rewards=())
        self.emit(PhaseStarted(phase="stage", stage=stage + 1))

    def _enter(self, stage: int) -> None:
        self.method.enter_stage(stage)
        self._loss = self.accelerator.prepare(MethodLoss(self.method))

    def averaged(self) -> AbstractContextManager[None]:
        """The branches as they are evaluated and published: their average, if there is one."""
        return self.average.applied()

    def _batch(self, part: int) -> Batch:
        """This process's share of the update; images are numbered across all processes."""
        size, step = self.spec.method.batch_size, self._step(part)
        first = (step * self.accelerator.num_processes + self.accelerator.process_index) * size
        pool = self.method.image_pool()
        images = [image % pool if pool else image for image in range(first, first + size)]
        return Batch(
            prompts=tuple(self._prompt(image) for image in images),
            seeds=tuple(derive_seed(self.spec.seed, "image", image) for image in images),
            draw=derive_seed(self.spec.seed, "draw", step),
        )

    def _step(self, part: int) -> int:
        return self.state.update * self._parts + part

    def _prompt(self, image: int) -> str:
        """Every prompt once per epoch, in an order of its own."""
        epoch, position = divmod(image, len(self.prompts))
        return self.prompts[_order(self.spec.seed, epoch, len(self.prompts))[position]]

    def _clip(self, branch: int) -> float:
        norm = nn.utils.clip_grad_norm_(
            self.method.bank.parameters(branch), self.spec.method.max_grad_norm
        ).item()
        self._require_finite("gradient", norm)
        return norm

    def _require_finite(self, what: str, value: float) -> None:
        if not any_process(self.accelerator, not math.isfinite(value)):
            return
        update = self.state.update + 1
        self.emit(AlertRaised(kind="nan", update=update, action="stop", judge=what))
        raise DivergedError(f"the {what} of update {update} is {value}; weights are unchanged")

    def _learning_rate(self) -> float:
        warmup = self.spec.method.warmup_updates
        share = min(1.0, (self.state.update + 1) / warmup) if warmup else 1.0
        return self._peak * share

    def _advance(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        self._durations.append(seconds)
        reward = gathered(self.accelerator, [outcome.reward for outcome in outcomes])
        images, totals = len(reward), self._evaluations(outcomes)
        self._set(
            update=self.state.update + 1,
            seconds=time.monotonic() - self._began,
            images=self.state.images + images,
            evaluations_with_gradient=self.state.evaluations_with_gradient
            + round(totals[0] * images),
            evaluations_without_gradient=self.state.evaluations_without_gradient
            + round(totals[1] * images),
            stage_rewards=(*self.state.stage_rewards, reward.mean().item())[-2 * PLATEAU_UPDATES :],
        )
        if self.state.updates is None and len(self._durations) == CALIBRATION_UPDATES:
            self._calibrate()
        self._end_stage_on_plateau()

    def _calibrate(self) -> None:
        """Turns `seconds` into updates once; later stages are priced by their evaluations."""
        per_update = sum(self._durations) / CALIBRATION_UPDATES
        wanted = (self.spec.method.seconds or 0.0) / (per_update * self._mean_stage_cost())
        # One update for each stage that is still to come, though its planned start has passed.
        shortest = self.state.update + len(self.method.stage_shares) - 1
        updates = decide(self.accelerator, max(shortest, round(wanted)))
        self._set(updates=updates, stage_starts=self._starts(updates))

    def _mean_stage_cost(self) -> float:
        """Cost of a mean update relative to one of stage 1, by the model of docs/methods.md."""
        shares = self.method.stage_shares
        costs = []
        for stage in range(1, len(shares) + 1):
            self.method.enter_stage(stage)
            costs.append(self._cost())
        self.method.enter_stage(self.state.stage)
        return sum(s * c / costs[0] for s, c in zip(shares, costs, strict=True))

    def _cost(self) -> int:
        """Forward passes per image in this stage; those that a pool spares are free."""
        plan, shortcut = self.method.training_plan(), self.method.shortcut
        if self.method.image_pool():
            plan = tuple(evaluation for evaluation in plan if evaluation.with_gradient)
        leash = leash_calls(plan) if self.spec.method.leash else ()
        return forward_units(
            (*plan, *leash),
            self.method.guidance_scale,
            shortcut_guidance=shortcut.guidance_scale if shortcut else 1.0,
            gradient_checkpointing=self.spec.method.gradient_checkpointing,
        )

    def _end_stage_on_plateau(self) -> None:
        """Moves the later stages and the end forward, so that each keeps its planned length."""
        options, stage = self.spec.method, self.state.stage
        if not isinstance(options, ShortFT) or options.stage_switch != "plateau":
            return
        if self.state.updates is None or not has_plateaued(self.state.stage_rewards):
            return
        ends = (*self.state.stage_starts, self.state.updates)
        saved = ends[stage] - self.state.update
        starts = tuple(start - saved * (i >= stage) for i, start in enumerate(ends))
        self._set(stage_starts=starts[:-1], updates=starts[-1])

    def _set(self, **changes: object) -> None:
        self.state = self.state.model_copy(update=changes)

    def _evaluate(self) -> None:
        """Scores the panel, moves `best` if it may, and lets the guard act; once per update."""
        if self._evaluated == self.state.update:
            return
        verdict = None
        if self.accelerator.is_main_process:
            with self.averaged(), suppress(StoppedError):
                verdict = self.evaluator.evaluate(self.state.update, best=self.state.best_target)
        verdict = decide(self.accelerator, verdict)
        if self.state.evaluation_due != (verdict is None):
            self._set(evaluation_due=verdict is None)
        if verdict is None:
            return
        self._evaluated = self.state.update
        if verdict.is_best:
            self._set(best_target=verdict.target, best_update=self.state.update)
        if verdict.alarm:
            self._set(halted=self.spec.guard.action == "stop")
            self._paused = self.spec.guard.action == "pause"

    def _save(self) -> None:
        """Unless this very state is saved: an evaluation may change it after its update was."""
        if self._saved is self.state:
            return
        self._set(seconds=time.monotonic() - self._began)
        self._saved = self.state
        if self.accelerator.is_main_process:
            self.emit(
                self.checkpoints.save(
                    self.state, *self._training(), write_beside=self._write_beside
                )
            )

    def _write_beside(self, update: int) -> None:
        if self.save_adapter is not None:
            with self.averaged():
                self.save_adapter(update)

    def _training(self) -> tuple[list[nn.Parameter], torch.optim.Optimizer, list[Tensor]]:
        """What a checkpoint holds."""
        return self._parameters(), self.optimizer, self.average.averages

    def _parameters(self) -> list[nn.Parameter]:
        """All branches: a frozen one still belongs to the state of the run."""
        bank = self.method.bank
        return [p for branch in range(1, bank.branches + 1) for p in bank.parameters(branch)]

    def _starts(self, updates: int | None) -> tuple[int, ...]:
        """When the stages begin; only the first is known before the length is."""
        return (0,) if updates is None else stage_starts(self.method.stage_shares, updates)

    def _ended(self) -> bool:
        """Done, halted by the guard, or any process told to stop."""
        told = self._out_of_time() or self.should_stop()
        return self._complete() or self._halted() or any_process(self.accelerator, told)

    def _complete(self) -> bool:
        return self.state.updates is not None and self.state.update >= self.state.updates

    def _halted(self) -> bool:
        """The guard ended the run: for good (`stop`), or until it is started again (`pause`)."""
        return self.state.halted or self._paused

    def _out_of_time(self) -> bool:
        limit = self.spec.max_runtime_seconds
        return limit is not None and time.monotonic() - self._began >= limit

    def _started(self) -> RunStarted:
        return RunStarted(
            spec_sha256=self.spec.sha256(),
            updates=self.state.updates,
            first_update=self.state.update + 1,
        )

    def _evaluations(self, outcomes: Sequence[Outcome]) -> tuple[float, float]:
        """Denoiser calls per image (with, without) gradient, averaged over the parts."""
        made = [outcome.evaluations for outcome in outcomes]
        return fmean(with_gradient for with_gradient, _ in made), fmean(w for _, w in made)

    def _metrics(self, outcomes: Sequence[Outcome], norms: dict[int, float]) -> StepMetrics:
        with_gradient, without = self._evaluations(outcomes)
        terms = {
            name: gathered(self.accelerator, [outcome.terms[name] for outcome in outcomes])
            for name in outcomes[0].terms
        }
        return StepMetrics(
            update=self.state.update,
            updates=self.state.updates,
            loss=gathered(self.accelerator, [o.loss.detach()[None] for o in outcomes])
            .mean()
            .item(),
            reward=self.state.stage_rewards[-1],
            terms={name: term.mean().item() for name, term in terms.items()},
            shares=self.method.objective.reward.shares(terms),
            grad_norms=norms,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            seconds=self._durations[-1],
            wall_seconds=self.state.seconds,
            evaluations_with_gradient=with_gradient,
            evaluations_without_gradient=without,
            images_seen=self.state.images,
            stage=self.state.stage,
            stages=len(self.method.stage_shares),
            peak_memory_bytes=peak_memory_bytes(self.method.model.device),
            statistics={
                name: fmean(outcome.statistics[name] for outcome in outcomes)
                for name in outcomes[0].statistics
            },
        )

    def _finished(self, outcome: Literal["completed", "stopped", "failed"]) -> RunFinished:
        return RunFinished(
            outcome=outcome,
            updates=self.state.update,
            best_update=self.state.best_update,
            seconds=time.monotonic() - self._began,
            evaluations_with_gradient=self.state.evaluations_with_gradient,
            evaluations_without_gradient=self.state.evaluations_without_gradient,
            images_seen=self.state.images,
            peak_memory_bytes=peak_memory_bytes(self.method.model.device),
        )


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return tuple(torch.randperm(count, generator=generator).tolist())
