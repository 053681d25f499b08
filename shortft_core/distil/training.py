"""The regression of jumps onto stored trajectories: step, average, save, stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor, nn

from shortft_core.checkpoint import Checkpoints, Manifest
from shortft_core.distil.jump_lora import JumpLora
from shortft_core.distil.jumps import Jump, Pairs
from shortft_core.errors import DivergedError
from shortft_core.events import (
    AlertRaised,
    DistilMetrics,
    EventSink,
    RunFinished,
    RunStarted,
)
from shortft_core.sampling import derive_seed
from shortft_core.spec.distil import DistilSpec

WARMUP_SHARE: Final = 0.03
"""Share of the updates over which the learning rate rises to its peak."""
MAX_GRAD_NORM: Final = 1.0
REPORT_EVERY: Final = 50
"""Updates between two lines about the loss."""


@dataclass(kw_only=True)
class JumpTrainer:
    """Fits one LoRA to all jumps; every draw follows from (seed, update), so a run can resume."""

    spec: DistilSpec
    lora: JumpLora
    jumps: Sequence[Jump]
    naive_errors: Sequence[float]
    """Mean squared noise error of a naive jump for each: the unit in which its loss counts."""
    pairs: Pairs
    checkpoints: Checkpoints
    emit: EventSink
    should_stop: Callable[[], bool] = lambda: False
    state: Manifest = field(init=False)
    average: list[nn.Parameter] = field(init=False)
    """Running average of the weights, in the order of `JumpLora.parameters`."""

    def __post_init__(self) -> None:
        self.weights = self.lora.parameters()
        self.average = [nn.Parameter(w.detach().clone(), requires_grad=False) for w in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, weight_decay=0.0)
        fresh = self.checkpoints.fresh(self.spec.updates)
        self.state = self.checkpoints.resume(self._all_weights(), self.optimizer) or fresh
        self._saved = self.state.update
        self._began = time.monotonic() - self.state.seconds
        self._window: list[list[float]] = []

    def run(self) -> Manifest:
        """Trains until done or stopped. Raises DivergedError before moving on a broken loss."""
        self.emit(
            RunStarted(
                spec_sha256=self.checkpoints.spec_sha256,
                updates=self.spec.updates,
                first_update=self.state.update + 1,
            )
        )
        try:
            while not self.complete and not self.should_stop():
                self._advance(self._update())
        except DivergedError:
            self.emit(self._finished("failed"))
            raise
        self._save()
        self.emit(self._finished("completed" if self.complete else "stopped"))
        return self.state

    @property
    def complete(self) -> bool:
        """Whether all updates are made."""
        return self.state.update >= self.spec.updates

    def _update(self) -> list[float]:
        """One step of AdamW on the mean over the jumps. Returns the loss of each, naive = 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for jump, unit in zip(self.jumps, self.naive_errors, strict=True):
            loss = self._loss(jump) / unit
            losses.append(self._finite(f"loss of jump {jump[0]} -> {jump[1]}", loss.item()))
            (loss / len(self.jumps)).backward()
        norm = nn.utils.clip_grad_norm_(self.weights, MAX_GRAD_NORM)
        self._finite("gradient", norm.item())
        self.optimizer.step()
        self._update_average()
        return losses

    def _finite(self, what: str, value: float) -> float:
        if math.isfinite(value):
            return value
        update = self.state.update + 1
        self.emit(AlertRaised(kind="nan", update=update, action="stop", judge=what))
        raise DivergedError(f"the {what} is {value} in update {update}; weights are unchanged")

    def _loss(self, jump: Jump) -> Tensor:
        """Mean squared error of the predicted noise against the one that makes the jump exact."""
        rows, model = self._rows(jump), self.lora.model
        predicted = model.predict_noise(
            self.pairs.at(rows, jump[0]).to(model.device),
            jump[0],
            model.encode_prompts(self.pairs.prompts(rows)),
            1.0,
        )
        return (predicted - self.pairs.noise(rows, jump).to(model.device)).square().mean()

    def _rows(self, jump: Jump) -> list[int]:
        """Trajectories of this update and jump, drawn with replacement."""
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.spec.seed, "rows", self.state.update, jump[0]))
        count = len(self.pairs.states)
        rows: list[int] = torch.randint(
            count, (self.spec.batch_size,), generator=generator
        ).tolist()
        return rows

    def _learning_rate(self) -> float:
        """Linear warm-up, then cosine decay to zero."""
        update, updates = self.state.update, self.spec.updates
        warmup = max(1, round(WARMUP_SHARE * updates))
        if update < warmup:
            return self.spec.learning_rate * (update + 1) / warmup
        progress = (update - warmup) / max(1, updates - warmup)
        return self.spec.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    @torch.no_grad()
    def _update_average(self) -> None:
        # The early average follows closely, or it would still hold the random start.
        update = self.state.update
        weight = 1 - min(self.spec.ema_decay, (1 + update) / (10 + update))
        for average, value in zip(self.average, self.weights, strict=True):
            average.lerp_(value, weight)

    def _advance(self, losses: list[float]) -> None:
        self._window.append(losses)
        self.state = self.state.model_copy(
            update={
                "update": self.state.update + 1,
                "seconds": time.monotonic() - self._began,
            }
        )
        if self.state.update % REPORT_EVERY == 0:
            self._report()
        if self.state.update % self.spec.checkpoint_every == 0:
            self._save()

    def _report(self) -> None:
        means = [sum(column) / len(column) for column in zip(*self._window, strict=True)]
        named = zip(self.jumps, means, strict=True)
        self.emit(
            DistilMetrics(
                update=self.state.update,
                updates=self.spec.updates,
                errors={f"{t} -> {s}": mean for (t, s), mean in named},
            )
        )
        self._window.clear()

    def _save(self) -> None:
        if self._saved == self.state.update:
            return
        self._saved = self.state.update
        self.emit(self.checkpoints.save(self.state, self._all_weights(), self.optimizer))

    def _all_weights(self) -> list[nn.Parameter]:
        return [*self.weights, *self.average]

    def _finished(self, outcome: Literal["completed", "stopped", "failed"]) -> RunFinished:
        return RunFinished(
            outcome=outcome,
            updates=self.state.update,
            seconds=time.monotonic() - self._began,
        )
