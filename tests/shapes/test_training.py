"""`fit`: a stopped and resumed training ends where one that never stopped ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shapes import training
from shapes.training import Recipe, fit

RECIPE = Recipe(
    name="tiny",
    steps=24,
    learning_rate=0.05,
    seed=3,
    warmup_share=0.25,
    ema_decay=0.9,
    save_every=7,
)
DIRECTION = torch.tensor([[0.5, -1.0, 2.0]])


class _StoppedError(Exception):
    """Stands for whatever ends a process between two steps."""


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STATE_FOLDER", tmp_path / "state")


def new_module() -> nn.Linear:
    torch.manual_seed(RECIPE.seed)
    return nn.Linear(3, 1)


def run(recipe: Recipe, module: nn.Linear, stop_at: int | None = None) -> nn.Linear:
    def loss_at(step: int) -> Tensor:
        if step == stop_at:
            raise _StoppedError
        inputs = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        loss: Tensor = (module(inputs) - inputs @ DIRECTION.T).square().mean()
        return loss

    fit(recipe, module, loss_at)
    return module


@pytest.mark.parametrize("stop_at", [3, 7, 18])
def test_resumed_equals_uninterrupted(
    stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(_StoppedError):
        run(RECIPE, new_module(), stop_at)
    # A new process begins with new weights; all that counts comes from the file.
    torch.manual_seed(99)
    resumed = run(RECIPE, new_module() if stop_at < RECIPE.save_every else nn.Linear(3, 1))
    monkeypatch.setattr(training, "STATE_FOLDER", tmp_path / "other")
    straight = run(RECIPE, new_module())
    assert resumed.weight.equal(straight.weight)
    assert resumed.bias.equal(straight.bias)


def test_a_finished_training_is_loaded_and_not_repeated() -> None:
    first = run(RECIPE, new_module())
    again = run(RECIPE, nn.Linear(3, 1), stop_at=0)
    assert again.weight.equal(first.weight)


def test_it_learns_and_returns_the_average() -> None:
    recipe = Recipe(name="long", steps=300, learning_rate=0.05, seed=3, ema_decay=0.9)
    assert (run(recipe, new_module()).weight - DIRECTION).abs().max() < 0.02


def test_frozen_parameters_stay() -> None:
    module = new_module()
    module.bias.requires_grad_(False)
    before = module.bias.clone()
    run(RECIPE, module)
    assert module.bias.equal(before)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    with pytest.raises(FloatingPointError, match="tiny: loss nan at step 0"):
        fit(RECIPE, module := new_module(), lambda _: module.weight.sum() * float("nan"))


def test_the_learning_rate_is_one_cycle() -> None:
    rates = [RECIPE.learning_rate_at(step) for step in range(RECIPE.steps)]
    assert rates[0] == pytest.approx(0.05 / 6)
    assert max(rates) == rates[5] == pytest.approx(0.05)
    assert rates[:6] == sorted(rates[:6])
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[-1] < 0.01 * 0.05 * 2
