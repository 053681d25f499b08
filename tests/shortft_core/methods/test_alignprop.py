"""AlignProp: which steps keep their gradient, and that checkpointing changes nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.schedule import alignprop_plan

Build = Callable[..., Backpropagation]
Gradients = Callable[..., dict[int, list[Tensor]]]
Calls = Callable[[nn.Module], list[tuple[bool, int]]]
DRAWS = 3000


def kept(method: Backpropagation, draw: int) -> list[bool]:
    return [e.with_gradient for e in method.training_plan(draw)]


def test_with_every_prediction_cut_the_latents_still_carry_the_gradient(
    build: Build, batch: Batch
) -> None:
    method = build("alignprop", steps=50)
    start = method.denoising.start(batch.seeds).requires_grad_()
    plan = alignprop_plan(method.inference_plan, [False] * 50)
    clean = method.denoising.run(plan, start, batch.prompts, batch.seeds)
    (gradient,) = torch.autograd.grad(clean.sum(), start)
    expected = torch.full_like(gradient, 13.152870585996826)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_step_i_of_fifty_is_kept_with_probability_i_plus_1_over_51(build: Build) -> None:
    method = build("alignprop", steps=50)
    totals = [sum(column) for column in zip(*(kept(method, d) for d in range(DRAWS)), strict=True)]
    for step, total in enumerate(totals):
        rate = (step + 1) / 51
        assert abs(total / DRAWS - rate) < 4 * math.sqrt(rate * (1 - rate) / DRAWS), step
    assert sum(totals) / DRAWS == pytest.approx(25, abs=0.3)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_every_draw_trains_at_least_one_step(build: Build, steps: int) -> None:
    """On a short chain the published draw cuts every step now and then, which trains nothing."""
    method = build("alignprop", steps=steps)
    assert all(any(kept(method, draw)) for draw in range(500))


def test_steps_are_cut_one_by_one(build: Build) -> None:
    method = build("alignprop")
    assert any(kept(method, draw) != sorted(kept(method, draw)) for draw in range(10))


def test_one_cut_per_batch_is_a_step_function_at_a_uniform_place(build: Build) -> None:
    method = build("alignprop", cut="per_batch")
    cuts: Counter[int] = Counter()
    for draw in range(DRAWS):
        flags = kept(method, draw)
        assert flags == sorted(flags)
        cuts[flags.count(False)] += 1
    assert sorted(cuts) == list(range(12))
    assert all(abs(n - DRAWS / 12) < 4 * math.sqrt(DRAWS / 12) for n in cuts.values())


def test_a_fixed_cut_is_draft_k(build: Build, gradients: Gradients) -> None:
    for cut_step, attached in ((None, 1), (3, 2), (0, 5)):
        fixed = {"cut": "fixed", "cut_step": cut_step, "gradient_checkpointing": False}
        method = build("alignprop", steps=5, **fixed)
        assert kept(method, 0) == kept(method, 1) == [False] * (5 - attached) + [True] * attached
        draft = build("draft_k", steps=5, gradient_steps=attached)
        pairs = zip(gradients(method)[1], gradients(draft)[1], strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("type_", ["alignprop", "shortft", "drtune", "draft_k"])
def test_checkpointed_gradients_are_the_plain_ones(
    build: Build, gradients: Gradients, calls: Calls, batch: Batch, type_: str
) -> None:
    """The recomputed call sees the stack it ran with, whatever acts when backward runs."""
    options = {"gradient_steps": 5} if type_ == "draft_k" else {}
    plain = build(type_, gradient_checkpointing=False, **options)
    saving = build(type_, gradient_checkpointing=True, **options)
    seen = calls(saving.model.denoiser)
    drawn = replace(batch, draw=4)
    ours, theirs = gradients(saving, batch=drawn), gradients(plain, batch=drawn)
    base_calls = sum(e.denoiser == "base" for e in saving.training_plan(4))
    attached = sum(e.denoiser == "base" and e.with_gradient for e in saving.training_plan(4))
    assert len(seen) == base_calls + attached, "each attached call runs once more"
    assert ours.keys() == theirs.keys()
    for branch, found in ours.items():
        for one, other in zip(found, theirs[branch], strict=True):
            assert (one - other).norm() <= 1e-10 * other.norm()
