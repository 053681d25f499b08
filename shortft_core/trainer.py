"""The training loop: step, report, evaluate, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import torch
from torch import nn

from shortft_core.checkpoint import Checkpoints, Manifest
from shortft_core.denoise import derive_seed
from shortft_core.errors import DivergedError
from shortft_core.evaluate import Evaluator
from shortft_core.events import AlertRaised, EventSink, RunFinished, RunStarted, StepMetrics
from shortft_core.methods import Batch, Method, Outcome
from shortft_core.schedule import counts
from shortft_core.spec import AlignSpec

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
    state: Manifest = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        options = self.spec.method
        self.optimizer = torch.optim.AdamW(
            self._parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        fresh = self.checkpoints.fresh(options.updates)
        self.state = self.checkpoints.resume(self._parameters(), self.optimizer) or fresh
        self._evaluated, self._saved = self.state.update, self.state
        self._paused = False
        self._durations: list[float] = []

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
        self.emit(self._finished("completed" if self._complete() else "stopped"))
        return self.state

    def _loop(self) -> None:
        # First, so that a judge that cannot serve fails now and not an hour later.
        self.evaluator.prepare()
        while not (self._complete() or self._halted() or self._out_of_time() or self.should_stop()):
            started = time.monotonic()
            outcomes, norms = self._update()
            self._advance(time.monotonic() - started)
            self.emit(self._metrics(outcomes, norms))
            if self.state.update % self.spec.evaluation.every_updates == 0:
                self._evaluate()
            if self.state.update % self.spec.method.checkpoint_every == 0:
                self._save()
        if self._complete() or self._out_of_time():
            self._evaluate()
        self._save()

    def _update(self) -> tuple[list[Outcome], dict[int, float]]:
        """Accumulated gradients, clipped per branch, one step of AdamW."""
        self.optimizer.zero_grad(set_to_none=True)
        outcomes = []
        for part in range(self.spec.method.accumulation):
            outcome = self.method.loss(self._batch(part))
            self._require_finite("loss", outcome.loss.item())
            (outcome.loss / self.spec.method.accumulation).backward()
            outcomes.append(outcome)
        norms = {branch: self._clip(branch) for branch in self.method.trained_branches()}
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        return outcomes, norms

    def _batch(self, part: int) -> Batch:
        size = self.spec.method.batch_size
        first = (self.state.update * self.spec.method.accumulation + part) * size
        images = range(first, first + size)
        return Batch(
            prompts=tuple(self._prompt(image) for image in images),
            seeds=tuple(derive_seed(self.spec.seed, "image", image) for image in images),
        )

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
        if math.isfinite(value):
            return
        update = self.state.update + 1
        self.emit(AlertRaised(kind="nan", update=update, action="stop", judge=what))
        raise DivergedError(f"the {what} of update {update} is {value}; weights are unchanged")

    def _learning_rate(self) -> float:
        warmup = self.spec.method.warmup_updates
        share = min(1.0, (self.state.update + 1) / warmup) if warmup else 1.0
        return self.spec.method.learning_rate * share

    def _advance(self, seconds: float) -> None:
        self._durations.append(seconds)
        self._set(update=self.state.update + 1, seconds=time.monotonic() - self._began)
        if self.state.updates is None and len(self._durations) == CALIBRATION_UPDATES:
            wanted = (self.spec.method.seconds or 0.0) * CALIBRATION_UPDATES / sum(self._durations)
            self._set(updates=max(self.state.update, round(wanted)))

    def _set(self, **changes: object) -> None:
        self.state = self.state.model_copy(update=changes)

    def _evaluate(self) -> None:
        """Scores the panel, moves `best` if it may, and lets the guard act; once per update."""
        if self._evaluated == self.state.update:
            return
        self._evaluated = self.state.update
        verdict = self.evaluator.evaluate(self.state.update, best=self.state.best_target)
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
        self.emit(self.checkpoints.save(self.state, self._parameters(), self.optimizer))

    def _parameters(self) -> list[nn.Parameter]:
        """All branches: a frozen one still belongs to the state of the run."""
        bank = self.method.bank
        return [p for branch in range(1, bank.branches + 1) for p in bank.parameters(branch)]

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

    def _metrics(self, outcomes: Sequence[Outcome], norms: dict[int, float]) -> StepMetrics:
        with_gradient, without = counts(self.method.training_plan())
        reward = torch.cat([outcome.reward for outcome in outcomes])
        return StepMetrics(
            update=self.state.update,
            loss=sum(outcome.loss.item() for outcome in outcomes) / len(outcomes),
            reward=reward.mean().item(),
            terms={
                name: torch.cat([outcome.terms[name] for outcome in outcomes]).mean().item()
                for name in outcomes[0].terms
            },
            grad_norms=norms,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            seconds=self._durations[-1],
            evaluations_with_gradient=with_gradient,
            evaluations_without_gradient=without,
            images_seen=self.state.update * len(reward),
        )

    def _finished(self, outcome: Literal["completed", "stopped", "failed"]) -> RunFinished:
        return RunFinished(
            outcome=outcome,
            updates=self.state.update,
            best_update=self.state.best_update,
            seconds=time.monotonic() - self._began,
        )


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return tuple(torch.randperm(count, generator=generator).tolist())
