"""ReFL: ancestral steps as constants, one attached call, the closed form of its image."""

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
from shortft_core.schedule import PREDICTED

Build = Callable[..., Backpropagation]
Gradients = Callable[..., dict[int, list[Tensor]]]
Calls = Callable[[nn.Module], list[tuple[bool, int]]]
SHORT = {"training_steps": 10, "first_mid_step": 6, "last_mid_step": 9}


def mid_of(method: Backpropagation, draw: int) -> int:
    return len(method.training_plan(draw)) - 1


def test_the_attached_step_is_uniform_over_its_range(build: Build) -> None:
    method = build("refl")
    drawn = Counter(mid_of(method, draw) for draw in range(3000))
    assert sorted(drawn) == list(range(30, 40))
    assert all(abs(count - 300) < 4 * math.sqrt(270) for count in drawn.values())


def test_one_unguided_call_is_attached(build: Build, calls: Calls, batch: Batch) -> None:
    method = build("refl", **SHORT)
    seen = calls(method.model.denoiser)
    for draw in range(4):
        seen.clear()
        mid = mid_of(method, draw)
        assert method.loss(replace(batch, draw=draw)).evaluations == (1, mid)
        assert seen == [(False, 2)] * mid + [(True, 2)]


def test_guidance_may_be_trained_with(build: Build, calls: Calls, batch: Batch) -> None:
    method = build("refl", training_guidance_scale=2.0, **SHORT)
    seen = calls(method.model.denoiser)
    method.loss(batch)
    assert {size for _, size in seen} == {4}
    assert method.guidance_scale == 2.0


def test_the_served_chain_is_not_the_trained_one(build: Build) -> None:
    method = build("refl", **SHORT)
    assert len(method.inference_plan) == 12
    assert {e.eta for e in method.inference_plan} == {0.0}
    plan = method.training_plan(0)
    assert [e.timestep for e in plan] == list(range(901, 901 - 100 * len(plan), -100))
    assert [e.eta for e in plan] == [1.0] * (len(plan) - 1) + [0.0]


def test_the_image_is_the_closed_form_of_the_attached_call(
    build: Build, gradients: Gradients, batch: Batch
) -> None:
    """(x - sqrt(1 - A) eps) / sqrt(A), and its gradient reaches the weights through eps alone."""
    method = build("refl", **SHORT)
    plan, args = method.training_plan(batch.draw), (batch.prompts, batch.seeds)
    assert plan[-1].next_timestep == PREDICTED
    with torch.no_grad():
        before = method.denoising.run(plan[:-1], method.denoising.start(batch.seeds), *args)
    noise = method.denoising.predict_noise(
        before, plan[-1], method.model.encode_prompts(batch.prompts)
    )
    alpha = method.model.alphas_cumprod[plan[-1].timestep].item()
    clean = (before - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)
    whole = method.denoising.run(plan, method.denoising.start(batch.seeds), *args)
    torch.testing.assert_close(whole, clean, rtol=1e-12, atol=1e-12)
    loss = method.objective(clean, *args).loss
    closed = torch.autograd.grad(loss, method.bank.parameters(1))
    for ours, theirs in zip(gradients(method)[1], closed, strict=True):
        assert (ours - theirs).norm() <= 1e-10 * theirs.norm()


def test_images_above_the_threshold_have_no_gradient(
    build: Build, gradients: Gradients, batch: Batch
) -> None:
    plain = build("refl", **SHORT)
    rewards = plain.loss(batch).reward
    between = rewards.mean().item()
    assert rewards.min() < between < rewards.max()
    above = build("refl", reward_threshold=10.0, **SHORT)
    below = build("refl", reward_threshold=-1.0, **SHORT)
    mixed = build("refl", reward_threshold=between, **SHORT)
    assert above.loss(batch).loss.item() == pytest.approx(10 - between, rel=1e-12)
    for ours, theirs in zip(gradients(above)[1], gradients(plain)[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert below.loss(batch).loss.item() == 0
    assert all(not grad.any() for grad in gradients(below)[1])
    low = rewards.min().item()
    assert mixed.loss(batch).loss.item() == pytest.approx((between - low) / 2)


def test_only_the_branches_receive_gradient(build: Build, batch: Batch) -> None:
    method = build("refl", **SHORT)
    method.loss(batch).loss.backward()
    model, own = method.model, {id(w) for w in method.bank.parameters(1)}
    parts = (model.denoiser, model.vae, model.text_encoder)  # type: ignore[attr-defined]
    others = [w for part in parts for w in part.parameters() if id(w) not in own]
    assert others
    assert all(weight.grad is None and not weight.requires_grad for weight in others)
    assert all(weight.grad is not None for weight in method.bank.parameters(1))


def test_the_rollout_repeats_with_its_seeds_and_no_others(build: Build, batch: Batch) -> None:
    method = build("refl", **SHORT)
    first = method.loss(batch).loss
    assert torch.equal(method.loss(batch).loss, first)
    assert not torch.equal(method.loss(replace(batch, seeds=(5, 7))).loss, first)
