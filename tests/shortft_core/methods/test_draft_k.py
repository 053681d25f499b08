"""DRaFT-K: counts, the truncation border, finite differences and DRaFT-1's closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from shortft_core.denoise import denoise
from shortft_core.methods import Batch
from shortft_core.methods.draft_k import DraftKMethod, build
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.rewards import Composite
from shortft_core.sampling import ddim_step
from shortft_core.schedule import base_plan, counts
from shortft_core.spec import DraftK

LoadTiny = Callable[..., StableDiffusion]
BATCH = Batch(prompts=("a red circle", "a blue star"), seeds=(5, 6))


class MeanSquare:
    """A smooth reward with a gradient at every pixel."""

    name = "mean_square"

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        return (images - 0.3).square().mean(dim=(1, 2, 3))


def make(load_tiny: LoadTiny, steps: int, gradient_steps: int) -> DraftKMethod:
    spec = DraftK(steps=steps, gradient_steps=gradient_steps, rank=2, guidance_scale=2.0)
    model = load_tiny(double=True)
    # Images inside [0, 1], where the straight-through clamp is the identity.
    model.vae.decoder.conv_out.weight.data *= 0.1
    model.vae.decoder.conv_out.bias.data.zero_()
    method = build(spec, model=model, reward=Composite([(MeanSquare(), 1.0)]), seed=0)
    generator = torch.Generator().manual_seed(2)
    for weight in method.bank.parameters(1):
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * 0.05
    return method


@pytest.mark.parametrize(("steps", "gradient_steps"), [(50, 1), (50, 5), (4, 4)])
def test_the_last_k_evaluations_carry_gradient(
    load_tiny: LoadTiny, steps: int, gradient_steps: int
) -> None:
    plan = make(load_tiny, steps, gradient_steps).training_plan()
    assert counts(plan) == (gradient_steps, steps - gradient_steps)
    assert [e.with_gradient for e in plan[-gradient_steps:]] == [True] * gradient_steps


def test_the_denoiser_runs_as_often_as_the_plan_says(load_tiny: LoadTiny) -> None:
    method = make(load_tiny, 10, 3)
    seen: list[tuple[bool, int]] = []
    method.model.denoiser.register_forward_pre_hook(
        lambda _, inputs: seen.append((torch.is_grad_enabled(), len(inputs[0])))
    )
    method.loss(BATCH)
    # Guidance doubles the batch; the first seven calls build no graph.
    assert seen == [(False, 4)] * 7 + [(True, 4)] * 3


def directional_derivative(method: DraftKMethod) -> tuple[float, float]:
    """(autograd, central difference) of the loss along one random direction."""
    weights = method.bank.parameters(1)
    generator = torch.Generator().manual_seed(9)
    direction = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
    method.loss(BATCH).loss.backward()
    pairs = zip(weights, direction, strict=True)
    autograd = sum((w.grad * d).sum().item() for w, d in pairs if w.grad is not None)
    values, width = [], 1e-5
    for sign in (1, -1):
        for weight, along in zip(weights, direction, strict=True):
            weight.data += sign * width * along
        with torch.no_grad():
            values.append(method.loss(BATCH).loss.item())
        for weight, along in zip(weights, direction, strict=True):
            weight.data -= sign * width * along
    return autograd, (values[0] - values[1]) / (2 * width)


def test_full_draft_equals_finite_differences(load_tiny: LoadTiny) -> None:
    autograd, difference = directional_derivative(make(load_tiny, 4, 4))
    assert autograd == pytest.approx(difference, rel=1e-6)


def test_truncation_drops_what_earlier_steps_contribute(load_tiny: LoadTiny) -> None:
    autograd, difference = directional_derivative(make(load_tiny, 4, 1))
    assert abs(autograd - difference) > 1e-3 * abs(difference)


def test_draft_1_is_its_closed_form(load_tiny: LoadTiny) -> None:
    """dL/dtheta = w_1 (d eps / d theta)^T dL/dx0, with w_1 = b of the last step."""
    method = make(load_tiny, 50, 1)
    method.loss(BATCH).loss.backward()
    automatic = [w.grad.clone() for w in method.bank.parameters(1) if w.grad is not None]
    model, bank = method.model, method.bank
    plan = base_plan(50, branches=(1,))
    with torch.no_grad():
        before = denoise(
            plan[:-1], BATCH.prompts, BATCH.seeds, model=model, bank=bank, guidance_scale=2.0
        )
    conditioning = model.encode_prompts(BATCH.prompts)
    with bank.stack((1,)):
        noise = model.predict_noise(before, plan[-1].timestep, conditioning, 2.0)
    step = (plan[-1].timestep, plan[-1].next_timestep)
    clean = ddim_step(before, noise.detach(), *step, model.alphas_cumprod).requires_grad_()
    images = model.decode(clean)
    reward = (images + (images.clamp(0, 1) - images).detach() - 0.3).square().mean()
    (gradient,) = torch.autograd.grad(-reward, clean)
    one = torch.ones(1, dtype=torch.float64)
    w_1 = ddim_step(0 * one, one, *step, model.alphas_cumprod).item()
    assert w_1 == pytest.approx(-0.01214, abs=5.1e-6)
    closed = torch.autograd.grad(noise, bank.parameters(1), grad_outputs=w_1 * gradient)
    for ours, theirs in zip(automatic, closed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)


def test_an_unresolved_spec_is_refused(load_tiny: LoadTiny) -> None:
    with pytest.raises(ValueError, match="guidance_scale is unresolved"):
        build(DraftK(), model=load_tiny(), reward=Composite([(MeanSquare(), 1.0)]), seed=0)


def test_a_half_precision_base_trains_fp32_branches(load_tiny: LoadTiny) -> None:
    """What a GPU runs: bf16 denoiser and text encoder, fp32 chain, VAE and branches."""
    model = load_tiny()
    model.denoiser.bfloat16()
    model.text_encoder.bfloat16()
    spec = DraftK(steps=4, gradient_steps=2, rank=2, guidance_scale=2.0)
    method = build(spec, model=model, reward=Composite([(MeanSquare(), 1.0)]), seed=0)
    outcome = method.loss(BATCH)
    assert outcome.reward.dtype == torch.float32
    outcome.loss.backward()
    # At zero up-projections only these can move; the down-projections follow one update later.
    moved = [layer.up[0].grad for layer in method.bank.layers.values()]
    assert all(grad is not None and grad.dtype == torch.float32 for grad in moved)
    assert sum(grad.norm().item() for grad in moved if grad is not None) > 0
