"""What runs a chain: the right denoiser, the right stack, the same image whatever the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from shortft_core.adapters import AdapterBank
from shortft_core.denoise import Denoising, denoise
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.schedule import Evaluation, base_plan
from shortft_core.shortcuts import naive

LoadTiny = Callable[..., StableDiffusion]
PROMPTS = ("a red circle", "a blue star")


def filled(model: StableDiffusion) -> AdapterBank:
    bank = AdapterBank(model.denoiser, branches=2, rank=2)
    for branch in (1, 2):
        for weight in bank.parameters(branch):
            weight.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(branch))
    return bank


@pytest.mark.parametrize("double", [False, True])
def test_the_chain_is_as_precise_as_its_weights_and_never_below_fp32(
    load_tiny: LoadTiny,
    double: bool,  # noqa: FBT001 - parametrized
) -> None:
    model = load_tiny(double=double)
    denoising = Denoising(model=model, guidance_scale=1.0)
    expected = torch.float64 if double else torch.float32
    assert denoising.start((1,)).dtype == expected
    model.denoiser.bfloat16()
    assert denoising.start((1,)).dtype == torch.float32


def test_noise_has_the_shape_of_the_size_that_is_asked(load_tiny: LoadTiny) -> None:
    denoising = Denoising(model=load_tiny(), guidance_scale=1.0)
    assert denoising.start((1, 2)).shape == (2, 4, 8, 8)
    assert denoising.start((1,), (16, 32)).shape == (1, 4, 8, 16)


def test_an_image_does_not_depend_on_its_batch(load_tiny: LoadTiny) -> None:
    model, plan = load_tiny(double=True), base_plan(3)
    together = denoise(plan, PROMPTS, (1, 2), model=model, bank=None, guidance_scale=2.0)
    alone = denoise(plan, PROMPTS[1:], (2,), model=model, bank=None, guidance_scale=2.0)
    torch.testing.assert_close(together[1:], alone, rtol=1e-9, atol=1e-12)


def test_each_evaluation_runs_with_its_own_stack(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    bank = filled(model)
    denoising = Denoising(model=model, guidance_scale=2.0, stacks=bank)
    conditioning, latents = model.encode_prompts(PROMPTS), denoising.start((1, 2))
    seen = {}
    for stack in ((), (1,), (2,), (1, 2)):
        evaluation = Evaluation(501, 261, branches=stack)
        seen[stack] = denoising.predict_noise(latents, evaluation, conditioning)
        assert bank.active == ()
    assert torch.equal(seen[()], model.predict_noise(latents, 501, conditioning, 2.0))
    outputs = list(seen.values())
    assert not any(
        torch.equal(one, other) for i, one in enumerate(outputs) for other in outputs[:i]
    )


def test_an_observer_sees_every_call_as_it_happened(load_tiny: LoadTiny) -> None:
    model, plan = load_tiny(), base_plan(4)
    denoising = Denoising(model=model, guidance_scale=2.0)
    seen: list[tuple[torch.Tensor, Evaluation, torch.Tensor]] = []
    start = denoising.start((1, 2))
    denoising.run(plan, start, PROMPTS, (1, 2), lambda *call: seen.append(call))
    assert [evaluation for _, evaluation, _ in seen] == list(plan)
    assert torch.equal(seen[0][0], start)
    conditioning = model.encode_prompts(PROMPTS)
    for latents, evaluation, noise in seen:
        assert torch.equal(noise, denoising.predict_noise(latents, evaluation, conditioning))


def test_a_jump_needs_a_shortcut(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    jump = [Evaluation(741, 501, "shortcut")]
    with pytest.raises(ValueError, match="give the model that serves them"):
        denoise(jump, PROMPTS, (1, 2), model=model, bank=None, guidance_scale=1.0)


def test_a_jump_is_made_without_branches(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    bank, shortcut = filled(model), naive(model, 2.0)
    denoising = Denoising(model=model, guidance_scale=2.0, stacks=bank, shortcut=shortcut)
    conditioning, latents = model.encode_prompts(PROMPTS), denoising.start((1, 2))
    jumped = denoising.predict_noise(latents, Evaluation(741, 501, "shortcut"), conditioning)
    assert torch.equal(jumped, model.predict_noise(latents, 741, conditioning, 2.0))
