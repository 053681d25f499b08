"""DRTune: constant inputs, K trained steps, and a gradient that is a sum of closed forms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.sampling import ddim_step, run_chain
from shortft_core.schedule import PREDICTED, base_plan, counts, drtune_plan
from shortft_core.spec import DRTune

Build = Callable[..., Backpropagation]
Gradients = Callable[..., dict[int, list[Tensor]]]
Calls = Callable[[nn.Module], list[tuple[bool, int]]]
GROWTH, STOPPED_GROWTH = 13.152870585996826, 13.1584641
"""sqrt(A_0 / A_981) and 1 / sqrt(A_981): the gradient at pure noise per gradient at x0."""


def test_the_latents_carry_the_known_gradient_through_a_constant_denoiser(
    build: Build, batch: Batch
) -> None:
    method = build("drtune", steps=50)
    start = method.denoising.start(batch.seeds).requires_grad_()
    clean = method.denoising.run(method.training_plan(3), start, batch.prompts, batch.seeds)
    (gradient,) = torch.autograd.grad(clean.sum(), start)
    expected = torch.full_like(gradient, GROWTH)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_wherever_the_chain_stops_the_gradient_at_pure_noise_is_the_same(
    model: Callable[[], StableDiffusion],
) -> None:
    alphas_cumprod = model().alphas_cumprod
    exact = 1 / math.sqrt(alphas_cumprod[981].item())
    assert exact == pytest.approx(STOPPED_GROWTH, abs=5e-8)
    for stop in range(1, 51):
        plan = drtune_plan(base_plan(50), {50}, stop)
        assert len(plan) == 51 - stop
        start = torch.ones(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
        clean = run_chain(plan, start, lambda x, _: torch.tanh(x), alphas_cumprod)
        (gradient,) = torch.autograd.grad(clean, start)
        assert gradient.item() == pytest.approx(exact, rel=1e-12)


def test_one_trained_step_has_the_gradient_of_its_closed_form(
    build: Build, gradients: Gradients, batch: Batch
) -> None:
    """w_t (d eps / d theta)^T grad r, with w_t = b_t sqrt(A_0 / A_(t - 20))."""
    method = build("drtune", steps=50)
    args, alphas = (batch.prompts, batch.seeds), method.model.alphas_cumprod
    before: dict[int, Tensor] = {}
    with torch.no_grad():
        clean = method.denoising.run(
            method.inference_plan,
            method.denoising.start(batch.seeds),
            *args,
            lambda latents, evaluation, _: before.update({evaluation.timestep: latents}),
        )
    clean.requires_grad_()
    (at_clean,) = torch.autograd.grad(method.objective(clean, *args).loss, clean)
    conditioning = method.model.encode_prompts(batch.prompts)
    for timestep, weight in ((981, -1.4438), (501, -0.1044), (1, -0.01214)):
        (at,) = (i for i, e in enumerate(method.inference_plan) if e.timestep == timestep)
        plan = drtune_plan(method.inference_plan, {50 - at})
        noise = method.denoising.predict_noise(before[timestep], plan[at], conditioning)
        one, following = torch.ones(1, dtype=torch.float64), plan[at].next_timestep
        b = ddim_step(0 * one, one, timestep, following, alphas).item()
        w = b * math.sqrt(alphas[0] / alphas[max(following, 0)])
        assert w == pytest.approx(weight, abs=5.1e-5)
        weights = method.bank.parameters(1)
        closed = torch.autograd.grad(noise, weights, grad_outputs=w * at_clean)
        for mine, theirs in zip(gradients(method, plan)[1], closed, strict=True):
            error = (mine - theirs).norm() / theirs.norm()
            assert error < 1e-12


def test_k_calls_are_attached_and_see_constants(build: Build, calls: Calls, batch: Batch) -> None:
    method = build("drtune", trained_steps=5)
    seen = calls(method.model.denoiser)
    for draw in range(3):
        seen.clear()
        outcome = method.loss(replace(batch, draw=draw))
        assert Counter(flag for flag, _ in seen) == {True: 5, False: 7}
        assert outcome.evaluations == (5, 7)
        assert all(e.detach_input for e in method.training_plan(draw))


def test_every_start_is_drawn_and_nothing_else(build: Build) -> None:
    method = build("drtune", steps=50, trained_steps=5)
    drawn = Counter(
        next(i for i, e in enumerate(method.training_plan(draw)) if e.with_gradient)
        for draw in range(2000)
    )
    # From pure noise the first trained step is the one of the last start, s = 10.
    assert sorted(drawn) == list(range(10))
    assert all(abs(count - 200) < 4 * math.sqrt(180) for count in drawn.values())


def test_early_stop_ends_in_one_jump_to_the_predicted_image(build: Build) -> None:
    method = build("drtune", trained_steps=3, early_stop=4)
    lengths = set()
    for draw in range(200):
        plan = method.training_plan(draw)
        lengths.add(len(plan))
        assert plan[-1].next_timestep == PREDICTED
        assert [e.timestep for e in plan] == [
            e.timestep for e in method.inference_plan[: len(plan)]
        ]
    assert lengths == {12, 11, 10, 9}


@pytest.mark.parametrize(
    ("trained_steps", "early_stop"), [(1, 1), (2, 7), (3, 9), (5, 9), (12, 12)]
)
def test_every_draw_trains_at_least_one_step(
    build: Build, trained_steps: int, early_stop: int
) -> None:
    method = build("drtune", trained_steps=trained_steps, early_stop=early_stop)
    attached = [counts(method.training_plan(draw))[0] for draw in range(300)]
    assert min(attached) >= 1
    assert max(attached) == trained_steps


@pytest.mark.parametrize(("trained_steps", "early_stop"), [(1, 2), (2, 8), (3, 10), (5, 10)])
def test_an_early_stop_that_may_leave_nothing_to_train_is_refused(
    trained_steps: int, early_stop: int
) -> None:
    """The first of the K steps may lie as late as s = 1: then the last is 1 + (K - 1) T // K."""
    with pytest.raises(ValidationError, match="early_stop"):
        DRTune(steps=12, trained_steps=trained_steps, early_stop=early_stop)


def test_the_chain_is_the_one_that_is_served(build: Build) -> None:
    method = build("drtune")
    plan = method.training_plan(1)
    assert tuple(replace(e, with_gradient=False, detach_input=False) for e in plan) == (
        method.inference_plan
    )
