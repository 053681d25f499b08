"""DRaFT+'s leash against its formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.methods.leash import Leash
from shortft_core.schedule import counts, leash_calls

Build = Callable[..., Backpropagation]
Slopes = Callable[..., list[tuple[float, float]]]
METHODS = ["shortft", "draft_k", "draft_lv", "refl", "alignprop", "drtune", "direct"]
OPTIONS: dict[str, dict[str, Any]] = {
    "refl": {"training_steps": 5, "first_mid_step": 2, "last_mid_step": 4},
    "direct": {"guidance_scale": 1.0},
    "draft_k": {"gradient_steps": 3, "steps": 5},
    "draft_lv": {"steps": 4},
    "alignprop": {"steps": 6},
    "drtune": {"trained_steps": 3, "steps": 6},
}
DRAWN = 4


@pytest.mark.parametrize("type_", METHODS)
def test_new_branches_are_on_no_leash(build: Build, batch: Batch, type_: str) -> None:
    options = OPTIONS.get(type_, {})
    leashed = build(type_, leash=100.0, zero=True, **options)
    plain = build(type_, zero=True, **options)
    drawn = replace(batch, draw=DRAWN)
    outcome = leashed.loss(drawn)
    assert outcome.statistics["leash"] == 0
    assert torch.equal(outcome.loss, plain.loss(drawn).loss)


@pytest.mark.parametrize("type_", METHODS)
def test_the_leash_is_the_mean_squared_distance_from_the_base_model(
    build: Build, batch: Batch, type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OPTIONS.get(type_, {})
    method, plain = build(type_, leash=100.0, **options), build(type_, **options)
    drawn, noted, call = replace(batch, draw=DRAWN), [], Leash.__call__

    def note(leash: Leash, *seen: Any) -> None:
        noted.append(seen)
        call(leash, *seen)

    monkeypatch.setattr(Leash, "__call__", note)
    outcome, whole = method.loss(drawn), plain.loss(drawn)
    assert len(noted) == len(method.training_plan(DRAWN))
    expected = distance(method, drawn, noted)
    assert outcome.statistics["leash"] == pytest.approx(expected, rel=1e-9)
    assert outcome.loss.item() == pytest.approx(whole.loss.item() + 100 * expected, rel=1e-9)
    held = [(x, e) for x, e, _ in noted if e.with_gradient and e.denoiser == "base"]
    moved = sum(x.requires_grad for x, _ in held)
    with_gradient, without = whole.evaluations
    assert outcome.evaluations == (with_gradient + moved, without + len(held) - moved)


@pytest.mark.parametrize("type_", sorted(set(METHODS) - {"refl", "draft_lv"}))
def test_its_calls_are_those_of_the_cost_model(build: Build, batch: Batch, type_: str) -> None:
    method = build(type_, leash=1.0, **OPTIONS.get(type_, {}))
    plan = method.training_plan(DRAWN)
    made = method.loss(replace(batch, draw=DRAWN)).evaluations
    assert made == counts((*plan, *leash_calls(plan)))


def test_checkpointing_holds_on_a_leash_too(build: Build, batch: Batch) -> None:
    """What the backward pass keeps shrinks as without one, and nothing changes but memory."""
    options = {"leash": 1.0, "gradient_steps": 3, "steps": 5}
    whole, slopes = kept_and_slopes(build("draft_k", **options), batch)
    less, same = kept_and_slopes(build("draft_k", gradient_checkpointing=True, **options), batch)
    assert less < 0.3 * whole
    assert len(slopes) == len(same) > 0
    assert all(torch.equal(*pair) for pair in zip(slopes, same, strict=True))


def kept_and_slopes(method: Backpropagation, batch: Batch) -> tuple[int, list[Tensor]]:
    """Numbers that wait for the backward pass, and the gradients of the branch."""
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = method.loss(batch).loss
    loss.backward()
    found = (weight.grad for weight in method.bank.parameters(1))
    return sum(kept), [slope for slope in found if slope is not None]


def distance(method: Backpropagation, batch: Batch, noted: list[Any]) -> float:
    """By hand: the base model at the latents of every attached call."""
    conditioning = method.model.encode_prompts(batch.prompts)
    scale = method.denoising.guidance_scale
    with torch.no_grad():
        squares = [
            (noise - method.model.predict_noise(x, e.timestep, conditioning, scale)) ** 2
            for x, e, noise in noted
            if e.with_gradient and e.denoiser == "base"
        ]
    return fmean(square.mean().item() for square in squares)


def test_its_gradient_is_that_of_the_distance(build: Build, slopes: Slopes) -> None:
    """Also where the base model sees latents that the branch has moved."""
    method = build("shortft", leash=1.0, first_segment_grad_steps=3)
    for autograd, difference in slopes(method, *map(method.bank.parameters, (4, 1))):
        assert autograd == pytest.approx(difference, rel=1e-6)
