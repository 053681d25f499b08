"""DRaFT-LV: DRaFT-1 averaged over copies that carry no gradient into the chain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.methods.draft_lv import DraftLVMethod

Build = Callable[..., Backpropagation]
Gradients = Callable[..., dict[int, list[Tensor]]]
Calls = Callable[[nn.Module], list[tuple[bool, int]]]


class Held:
    """Counts the numbers that graphs keep for their backward pass, and the most at once."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> Kept:
        self.now += tensor.numel()
        self.peak = max(self.peak, self.now)
        return Kept(self, tensor)


class Kept:
    """One tensor of a graph, counted until the graph lets it go."""

    def __init__(self, held: Held, tensor: Tensor) -> None:
        self.held, self.tensor = held, tensor

    def __del__(self) -> None:
        self.held.now -= self.tensor.numel()


def test_without_copies_it_is_draft_1_bit_for_bit(
    build: Build, gradients: Gradients, batch: Batch
) -> None:
    method, draft = build("draft_lv", noised_copies=0), build("draft_k", gradient_steps=1)
    assert torch.equal(method.loss(batch).loss, draft.loss(batch).loss)
    assert all(map(torch.equal, gradients(method)[1], gradients(draft)[1]))


def test_each_copy_costs_one_attached_call(build: Build, calls: Calls, batch: Batch) -> None:
    method = build("draft_lv", noised_copies=2)
    seen = calls(method.model.denoiser)
    assert method.loss(batch).evaluations == (3, 11)
    assert seen == [(False, 4)] * 11 + [(True, 4)] * 3
    assert [e.with_gradient for e in method.training_plan()] == [False] * 11 + [True] * 3


def test_the_gradient_is_the_mean_over_the_image_and_its_constant_copies(
    build: Build, gradients: Gradients, batch: Batch
) -> None:
    method, draft = build("draft_lv", noised_copies=2), build("draft_k", gradient_steps=1)
    assert isinstance(method, DraftLVMethod)
    last, args = method.inference_plan[-1], (batch.prompts, batch.seeds)
    with torch.no_grad():
        start = draft.denoising.start(batch.seeds)
        clean = draft.denoising.run(draft.inference_plan, start, *args)
    parts = [gradients(draft)[1]]
    for copy in range(2):
        noised = method._noised(clean, batch.seeds, copy)
        again = draft.denoising.run([replace(last, with_gradient=True)], noised, *args)
        loss = draft.objective(again, *args).loss
        parts.append(list(torch.autograd.grad(loss, draft.bank.parameters(1))))
    assert not torch.equal(parts[1][0], parts[2][0]), "every copy has its own noise"
    for ours, *theirs in zip(gradients(method)[1], *parts, strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs).mean(0), rtol=1e-9, atol=1e-18)


def test_the_leash_pulls_at_every_attached_call(
    build: Build, gradients: Gradients, batch: Batch
) -> None:
    free, leashed = (build("draft_lv", noised_copies=2, leash=weight) for weight in (0.0, 0.5))
    assert isinstance(leashed, DraftLVMethod)
    plan, args, model = leashed.inference_plan, (batch.prompts, batch.seeds), leashed.model
    with torch.no_grad():
        last = leashed.denoising.run(plan[:-1], leashed.denoising.start(batch.seeds), *args)
        clean = leashed.denoising.run(plan[-1:], last, *args)
    conditioning = model.encode_prompts(batch.prompts)
    distances = []
    for latents in (last, *(leashed._noised(clean, batch.seeds, copy) for copy in range(2))):
        tuned = leashed.denoising.predict_noise(latents, plan[-1], conditioning)
        base = model.predict_noise(latents, plan[-1].timestep, conditioning, leashed.guidance_scale)
        distances.append((tuned - base.detach()).square().mean())
    pulls = torch.autograd.grad(torch.stack(distances).mean(), leashed.bank.parameters(1))
    assert all(pull.norm() > 0 for pull in pulls)
    for ours, without, pull in zip(gradients(leashed)[1], gradients(free)[1], pulls, strict=True):
        torch.testing.assert_close(ours, without + 0.5 * pull, rtol=1e-9, atol=1e-18)


def test_one_graph_is_held_at_a_time(build: Build, batch: Batch) -> None:
    """However many copies there are, as much is kept for the backward pass as without any."""
    peaks = []
    for copies in (0, 4):
        method, held = build("draft_lv", noised_copies=copies, leash=0.5), Held()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept.tensor):
            method.loss(batch)
        peaks.append(held.peak)
    assert peaks[0] > 0
    assert peaks[1] <= 1.05 * peaks[0]


def test_a_gradient_is_kept_once_however_many_copies_there_are(build: Build, batch: Batch) -> None:
    for copies in (0, 4):
        method = build("draft_lv", noised_copies=copies)
        held = method.loss(batch).loss.grad_fn.gradients  # type: ignore[union-attr]
        assert [each.shape for each in held] == [each.shape for each in method.bank.parameters(1)]


def test_the_copies_lie_at_the_noise_level_of_the_last_timestep(build: Build) -> None:
    method = build("draft_lv")
    assert isinstance(method, DraftLVMethod)
    signal = method.model.alphas_cumprod[1].item()
    clean = torch.full((200, 4, 8, 8), 3.0, dtype=torch.float64)
    noised = method._noised(clean, tuple(range(200)), 0)
    assert noised.mean().item() == pytest.approx(3 * math.sqrt(signal), abs=1e-3)
    assert noised.std().item() == pytest.approx(math.sqrt(1 - signal), rel=0.02)
    assert math.sqrt(1 - signal) == pytest.approx(0.0413, abs=5e-5)
    one = method._noised(clean[:1], (7,), 0)
    torch.testing.assert_close(one[0], noised[7], rtol=0, atol=0)


def test_where_the_last_step_is_noiseless_every_copy_is_draft_1(
    build: Build, gradients: Gradients
) -> None:
    """At sigma -> 0 the mean over n + 1 equal gradients is DRaFT-1's; the paper sums them."""
    found = []
    for method in (build("draft_lv", noised_copies=3), build("draft_k", gradient_steps=1)):
        quiet = method.model.alphas_cumprod.clone()
        quiet[1], quiet[0] = 1 - 1e-12, 1 - 2.5e-13
        method.model.alphas_cumprod = quiet
        found.append(gradients(method)[1])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()
