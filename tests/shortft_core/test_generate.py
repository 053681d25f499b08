"""Images: equal to diffusers' own pipeline, independent of their batch, with their provenance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from shortft_core.adapters import AdapterBank
from shortft_core.generate import Sampler, base_sampler, save_all, to_pil
from shortft_core.merged import MergedStacks, stacks_of
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.sampling import initial_latents
from shortft_core.schedule import inference_plan

LoadTiny = Callable[..., StableDiffusion]
PROMPTS = ("a red circle", "a blue star", "a")


def test_equals_the_pipeline_of_diffusers(load_tiny: LoadTiny, tiny_folder: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    seeds = (11, 12, 13)
    theirs = pipeline(
        list(PROMPTS),
        num_inference_steps=50,
        guidance_scale=4.0,
        latents=initial_latents(seeds, (4, 8, 8)),
        output_type="np",
    ).images
    ours = base_sampler(load_tiny(), guidance_scale=4.0).images(PROMPTS, seeds)
    assert np.abs(ours.permute(0, 2, 3, 1).numpy() - theirs).max() < 1e-4


def test_an_image_depends_on_its_own_prompt_and_seed(load_tiny: LoadTiny) -> None:
    sampler = base_sampler(load_tiny(), steps=5, batch_size=3)
    together = sampler.images(PROMPTS, (1, 2, 3))
    for index in range(3):
        alone = sampler.images(PROMPTS[index : index + 1], (index + 1,))
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-5)
    batched = replace(sampler, batch_size=2).images(PROMPTS, (1, 2, 3))
    torch.testing.assert_close(batched, together, rtol=0, atol=1e-5)


def test_another_size_than_the_trained_one(load_tiny: LoadTiny) -> None:
    sampler = base_sampler(load_tiny(), steps=2, size=(16, 24))
    assert sampler.images(["a"], [0]).shape == (1, 3, 16, 24)


def test_pictures_carry_what_is_needed_to_make_them_again(
    load_tiny: LoadTiny, tmp_path: Path
) -> None:
    model = load_tiny()
    sampler = base_sampler(model, steps=3, guidance_scale=2.0)
    (path,) = save_all(sampler, ["a réd circle"], [42], tmp_path / "new")
    with Image.open(path) as picture:
        assert picture.size == (16, 16)
        assert picture.info == {
            "prompt": "a réd circle",
            "seed": "42",
            "steps": "3",
            "guidance_scale": "2.0",
            "scheduler": "ddim-leading",
            "model_sha256": model.fingerprint,
        }


def test_pixels_are_rounded_not_truncated() -> None:
    (picture,) = to_pil(torch.full((1, 3, 2, 2), 0.9999))
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_no_graph_is_kept(load_tiny: LoadTiny) -> None:
    assert not base_sampler(load_tiny(), steps=2).images(["a"], [0]).requires_grad


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_chain_has_the_wanted_length(load_tiny: LoadTiny, steps: int) -> None:
    assert len(base_sampler(load_tiny(), steps=steps).plan) == steps


def tuned(model: StableDiffusion) -> Sampler:
    bank = AdapterBank(model.denoiser, branches=2, rank=2)
    generator = torch.Generator().manual_seed(1)
    for branch in (1, 2):
        for weight in bank.parameters(branch):
            weight.data.normal_(0, 0.3, generator=generator)
    bank.train_only((1, 2))
    return Sampler(model=model, plan=inference_plan(6, 2), guidance_scale=2.0, bank=bank)


def test_merged_weights_serve_what_the_unfused_bank_serves(load_tiny: LoadTiny) -> None:
    sampler = tuned(load_tiny())
    merged = sampler.images(["a"], [0])
    unfused = replace(sampler, stacks=sampler.bank).images(["a"], [0])
    base = base_sampler(load_tiny(), steps=6, guidance_scale=2.0).images(["a"], [0])
    assert (merged - unfused).abs().max() < 1e-4
    assert (merged - base).abs().max() > 1e-2


def test_a_bank_that_learns_is_merged_anew_for_every_call(load_tiny: LoadTiny) -> None:
    sampler = tuned(load_tiny())
    bank = sampler.bank
    assert bank is not None
    before = sampler.images(["a"], [0])
    kept = replace(sampler, stacks=MergedStacks(bank, stacks_of(sampler.plan)))
    for weight in bank.parameters(1):
        weight.data.mul_(2)
    after = sampler.images(["a"], [0])
    assert (after - before).abs().max() > 1e-3
    assert torch.equal(kept.images(["a"], [0]), before)
    assert (after - replace(sampler, stacks=bank).images(["a"], [0])).abs().max() < 1e-4


def test_weights_that_are_not_finite_show_in_the_images(load_tiny: LoadTiny) -> None:
    sampler = tuned(load_tiny())
    assert sampler.bank is not None
    sampler.bank.parameters(2)[0].data.fill_(torch.nan)
    assert sampler.images(["a"], [0]).isnan().all()


def test_sampling_leaves_the_base_weights_in_place(load_tiny: LoadTiny) -> None:
    sampler = tuned(load_tiny())
    state = {key: value.clone() for key, value in sampler.model.denoiser.state_dict().items()}
    sampler.images(["a"], [0])
    after = sampler.model.denoiser.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in state.items())


def test_the_base_stands_at_the_left_of_the_tuned_picture(
    load_tiny: LoadTiny, tmp_path: Path
) -> None:
    sampler = tuned(load_tiny())
    base = replace(sampler, bank=None)
    (path,) = save_all(sampler, ["a"], [3], tmp_path, base=base)
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
        assert picture.info["left"].startswith(f"base model {sampler.model.fingerprint}")
    left, right = (np.asarray(to_pil(chosen.images(["a"], [3]))[0]) for chosen in (base, sampler))
    assert np.array_equal(pixels, np.concatenate([left, right], axis=1))
    assert not np.array_equal(left, right)
