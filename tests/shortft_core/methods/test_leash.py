"""DRaFT+'s leash against its formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch

from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.methods.leash import Leash

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
    attached = sum(e.with_gradient and e.denoiser == "base" for _, e, _ in noted)
    with_gradient, without = whole.evaluations
    assert outcome.evaluations == (with_gradient, without + attached)


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
