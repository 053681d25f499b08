"""The DDIM step against diffusers' and against the coefficients of SD 1.5's grid."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from shortft_core.sampling import (
    ddim_step,
    initial_latents,
    run_chain,
    step_noise,
    stochastic_ddim_step,
)
from shortft_core.schedule import CLEAN, PREDICTED, Evaluation, base_plan, ddim_grid

SCHEDULER = DDIMScheduler(
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    steps_offset=1,
    set_alpha_to_one=False,
    clip_sample=False,
)
ANCESTRAL = DDPMScheduler(
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    clip_sample=False,
    timestep_spacing="leading",
    steps_offset=1,
)
ALPHAS = torch.cumprod(
    1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0
)


def coefficients(timestep: int, next_timestep: int) -> tuple[float, float]:
    """(a, b) of x_s = a x_t + b eps, read off the step itself."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    a = ddim_step(one, zero, timestep, next_timestep, ALPHAS).item()
    b = ddim_step(zero, one, timestep, next_timestep, ALPHAS).item()
    return a, b


@pytest.mark.parametrize("steps", [1, 4, 25, 50, 100])
def test_equals_the_scheduler_of_diffusers_on_the_grid(steps: int) -> None:
    SCHEDULER.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    for evaluation in base_plan(steps):
        latents = torch.randn(2, 4, 3, 3, generator=generator)
        noise = torch.randn(2, 4, 3, 3, generator=generator)
        ours = ddim_step(
            latents,
            noise,
            evaluation.timestep,
            evaluation.next_timestep,
            SCHEDULER.alphas_cumprod,
        )
        theirs = SCHEDULER.step(noise, evaluation.timestep, latents).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("timestep", "next_timestep", "a", "b"),
    [
        (981, 961, 1.12285, -0.12325),
        (741, 501, 2.13455, -1.21766),
        (481, 261, 1.47274, -0.64336),
        (241, 1, 1.20414, -0.63078),
        (1, CLEAN, 1.00043, -0.01214),
    ],
)
def test_coefficients_of_the_sd15_grid(
    timestep: int, next_timestep: int, a: float, b: float
) -> None:
    assert coefficients(timestep, next_timestep) == pytest.approx((a, b), abs=5.1e-6)


def test_the_chain_scales_latents_by_the_known_product() -> None:
    product = math.prod(coefficients(e.timestep, e.next_timestep)[0] for e in base_plan(50))
    assert product == pytest.approx(13.152870585996826, rel=1e-12)
    assert product == pytest.approx((ALPHAS[0] / ALPHAS[981]).sqrt().item(), rel=1e-12)


def test_the_product_holds_on_the_float32_schedule_that_diffusers_makes() -> None:
    alphas = SCHEDULER.alphas_cumprod
    assert alphas.dtype == torch.float32
    latents = torch.ones(1)
    for call in base_plan(50):
        still = torch.zeros(1)
        latents = ddim_step(latents, still, call.timestep, call.next_timestep, alphas)
    assert latents.item() == pytest.approx(13.1528705859968, rel=1e-6)


def test_half_precision_latents_are_stepped_in_fp32() -> None:
    half = torch.ones(1, dtype=torch.bfloat16)
    assert ddim_step(half, half, 981, 961, ALPHAS).dtype == torch.float32


def test_only_asked_evaluations_carry_gradient() -> None:
    weight = torch.tensor(0.5, requires_grad=True)
    seen: list[tuple[int, bool]] = []

    def predict(latents: Tensor, evaluation: Evaluation) -> Tensor:
        seen.append((evaluation.timestep, torch.is_grad_enabled()))
        return latents * weight

    plan = [Evaluation(741, 501), Evaluation(501, 261, with_gradient=True)]
    start = torch.ones(1, 1, 1, 1)
    run_chain(plan, start, predict, ALPHAS).sum().backward()
    assert seen == [(741, False), (501, True)]
    latents = ddim_step(start, start * 0.5, 741, 501, ALPHAS)
    _, b = coefficients(501, 261)
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(b * latents.item(), rel=1e-5)


def test_no_grad_around_a_chain_wins_over_the_plan() -> None:
    weight = torch.tensor(0.5, requires_grad=True)
    plan = [Evaluation(741, 501, with_gradient=True)]
    with torch.no_grad():
        latents = run_chain(plan, torch.ones(1, 1, 1, 1), lambda x, _: x * weight, ALPHAS)
    assert not latents.requires_grad


def test_initial_latents_depend_on_the_seed_alone() -> None:
    together = initial_latents([7, 8, 9], (4, 2, 2))
    torch.testing.assert_close(together[1:2], initial_latents([8], (4, 2, 2)), rtol=0, atol=0)
    assert together.std().item() == pytest.approx(1.0, abs=0.35)
    assert ddim_grid(50)[0] == 981


def drawn(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 3, 3, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("steps", [10, 40, 50])
def test_ancestral_steps_are_the_posterior_of_ddpm_on_the_grid(steps: int) -> None:
    """All but the last, where DDPM ends at 1 and Stable Diffusion's chain at A_0."""
    ANCESTRAL.set_timesteps(steps)
    latents, noise_prediction, _ = drawn(3)
    for evaluation in base_plan(steps)[:-1]:
        ancestral = Evaluation(evaluation.timestep, evaluation.next_timestep, eta=1.0)
        theirs = ANCESTRAL.step(
            noise_prediction,
            evaluation.timestep,
            latents,
            generator=torch.Generator().manual_seed(3),
        ).prev_sample
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
        ours = stochastic_ddim_step(
            latents, noise_prediction, ancestral, noise, ANCESTRAL.alphas_cumprod
        )
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_noisy_steps_are_those_of_diffusers(eta: float) -> None:
    SCHEDULER.set_timesteps(40)
    latents, noise_prediction, noise = drawn(3)
    for plain in base_plan(40):
        evaluation = Evaluation(plain.timestep, plain.next_timestep, eta=eta)
        theirs = SCHEDULER.step(
            noise_prediction, plain.timestep, latents, eta=eta, variance_noise=noise
        ).prev_sample
        ours = stochastic_ddim_step(
            latents, noise_prediction, evaluation, noise, SCHEDULER.alphas_cumprod
        )
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


def test_a_step_to_the_prediction_inverts_the_forward_process() -> None:
    clean, noise = (tensor.double() for tensor in drawn(2))
    for timestep in (981, 501, 1):
        alpha = ALPHAS[timestep]
        noised = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        predicted = ddim_step(noised, noise, timestep, PREDICTED, ALPHAS)
        torch.testing.assert_close(predicted, clean, rtol=1e-12, atol=1e-11)


def test_the_noise_of_a_step_follows_from_seed_and_timestep_alone() -> None:
    like = torch.empty(3, 4, 8, 8, dtype=torch.float64)
    noise = step_noise((1, 2, 3), 501, like)
    assert noise.dtype == torch.float64
    assert torch.equal(noise[1:2], step_noise((2,), 501, like))
    assert not torch.equal(noise, step_noise((1, 2, 3), 481, like))
    assert not torch.equal(noise, initial_latents((1, 2, 3), (4, 8, 8)).double())


def test_a_constant_input_leaves_the_latents_their_gradient() -> None:
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    plan = [Evaluation(741, 501, with_gradient=True, detach_input=True)]
    run_chain(plan, start, lambda x, _: x * weight, ALPHAS).sum().backward()
    a, b = coefficients(741, 501)
    assert start.grad is not None
    assert weight.grad is not None
    assert start.grad.item() == pytest.approx(a, rel=1e-12)
    assert weight.grad.item() == pytest.approx(b, rel=1e-12)
