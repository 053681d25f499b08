"""The resumable loop that every script of this folder trains with."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

log = logging.getLogger("shapes")

STATE_FOLDER: Final = Path(__file__).parent / "state"
"""Unfinished trainings; ignored by git, safe to delete."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training depends on beside its data: everything that the card has to state."""

    name: str
    steps: int
    learning_rate: float
    seed: int
    weight_decay: float = 0.01
    warmup_share: float = 0.08
    ema_decay: float | None = None
    save_every: int = 200

    def learning_rate_at(self, step: int) -> float:
        """One cycle: linear warm-up to the peak, cosine decay to zero."""
        warmup = max(1, round(self.warmup_share * self.steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def fit(recipe: Recipe, module: nn.Module, loss_at: Callable[[int], Tensor]) -> nn.Module:
    """Minimises `loss_at(step)` over the trainable parameters of `module`; resumes a stopped run.

    Every batch has to be a function of (seed, step), so that resuming equals not stopping.
    Returns the module that holds the averaged weights if the recipe asks for an average.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), weight_decay=recipe.weight_decay)
    average = {n: p.detach().clone() for n, p in named.items()} if recipe.ema_decay else {}
    path = STATE_FOLDER / f"{recipe.name}.safetensors"
    first = _load(path, optimizer, named, average)
    started, window = time.monotonic(), []
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_at(step)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{recipe.name}: loss {loss.item()} at step {step}")
        loss.backward()
        nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimizer.step()
        _update_average(average, named, recipe.ema_decay, step)
        window.append(loss.item())
        if (step + 1) % 50 == 0:
            seconds = (time.monotonic() - started) / (step + 1 - first)
            log.info("%s %d loss %.5f %.3f s/step", recipe.name, step + 1, _mean(window), seconds)
            window.clear()
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            _save(path, step + 1, optimizer, named, average)
    with torch.no_grad():
        for name, value in average.items():
            named[name].copy_(value)
    return module


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _update_average(
    average: Mapping[str, Tensor], named: Mapping[str, nn.Parameter], decay: float | None, step: int
) -> None:
    if decay is None:
        return
    # The early average follows closely, or it would still hold the random start.
    weight = 1 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in average.items():
            value.lerp_(named[name], weight)


def _tensors(
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, nn.Parameter],
    average: Mapping[str, Tensor],
) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in named.items():
        yield f"model.{name}", parameter.detach()
        for key, value in optimizer.state[parameter].items():
            yield f"{key}.{name}", value
    for name, value in average.items():
        yield f"average.{name}", value


def _save(
    path: Path,
    step: int,
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, nn.Parameter],
    average: Mapping[str, Tensor],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in _tensors(optimizer, named, average)}
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, metadata={"step": str(step)})
    temporary.replace(path)


def _load(
    path: Path,
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, nn.Parameter],
    average: Mapping[str, Tensor],
) -> int:
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(file.get_tensor(f"model.{name}"))
            optimizer.state[parameter] = {
                key: file.get_tensor(f"{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")
            }
        for name, value in average.items():
            value.copy_(file.get_tensor(f"average.{name}"))
        return int(file.metadata()["step"])
