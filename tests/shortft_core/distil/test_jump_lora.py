"""The LoRA file: what it touches, and that merging it is exactly what was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from shortft_core.distil.jump_lora import attach, merged
from shortft_core.models.stable_diffusion import StableDiffusion


def perturb(parameters: list[nn.Parameter], seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        # Values that fp16 holds, so that the file is as exact as the weights.
        drawn = 0.1 * torch.randn(parameter.shape, generator=generator)
        parameter.data.copy_(drawn.half())


def inputs(model: StableDiffusion) -> tuple[torch.Tensor, int, torch.Tensor, float]:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = model.encode_prompts(["a red circle", "a blue star"])
    return latents.to(conditioning.dtype), 501, conditioning, 1.0


def test_a_fresh_lora_changes_nothing(load_tiny: Callable[..., StableDiffusion]) -> None:
    base = load_tiny()
    lora = attach(base, rank=2, seed=0)
    assert torch.equal(lora.model.predict_noise(*inputs(base)), base.predict_noise(*inputs(base)))


def test_it_learns_alone_and_leaves_the_base_alone(
    load_tiny: Callable[..., StableDiffusion],
) -> None:
    base = load_tiny()
    before = {name: p.clone() for name, p in base.denoiser.named_parameters()}
    lora = attach(base, rank=2, seed=0)
    perturb(lora.parameters())
    lora.model.predict_noise(*inputs(base)).square().mean().backward()
    ours = {id(p) for p in lora.parameters()}
    for name, parameter in lora.model.denoiser.named_parameters():
        assert parameter.requires_grad == (id(parameter) in ours), name
    assert all(torch.any(p.grad != 0) for p in lora.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in lora.parameters())
    after = dict(base.denoiser.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_it_covers_linears_and_convolutions(load_tiny: Callable[..., StableDiffusion]) -> None:
    base = load_tiny()
    lora = attach(base, rank=2, seed=0)
    left_out = {
        name
        for name, module in base.denoiser.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and name not in lora.layers
    }
    assert left_out == {
        "conv_in",
        "conv_out",
        "time_embedding.linear_1",
        "time_embedding.linear_2",
    }


def test_its_start_follows_from_the_seed_alone(load_tiny: Callable[..., StableDiffusion]) -> None:
    base = load_tiny()
    first = attach(base, rank=2, seed=3).parameters()
    torch.rand(7)
    state = torch.get_rng_state()
    again = attach(base, rank=2, seed=3).parameters()
    assert torch.equal(torch.get_rng_state(), state)
    other = attach(base, rank=2, seed=4).parameters()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_the_merged_file_is_the_trained_model(
    load_tiny: Callable[..., StableDiffusion], tmp_path: Path
) -> None:
    base = load_tiny(double=True)
    lora = attach(base, rank=2, seed=0)
    perturb(lora.parameters())
    path = tmp_path / "lora.safetensors"
    lora.write(path, lora.parameters())
    whole = merged(base, path)
    expected = lora.model.predict_noise(*inputs(base))
    assert torch.allclose(whole.predict_noise(*inputs(base)), expected, atol=1e-5)
    assert not torch.allclose(base.predict_noise(*inputs(base)), expected, atol=1e-3)
    assert not any(p.requires_grad for p in whole.denoiser.parameters())


def test_the_keys_and_alpha_are_kohyas(
    load_tiny: Callable[..., StableDiffusion], tmp_path: Path
) -> None:
    lora = attach(load_tiny(), rank=2, seed=0)
    path = tmp_path / "lora.safetensors"
    lora.write(path, lora.parameters())
    tensors = load_file(path)
    convolution = "lora_unet_down_blocks_0_resnets_0_conv1"
    assert tensors[f"{convolution}.lora_down.weight"].shape == (2, 8, 3, 3)
    assert tensors[f"{convolution}.lora_up.weight"].shape == (8, 2, 1, 1)
    assert all(value.item() == 2.0 for name, value in tensors.items() if name.endswith("alpha"))
    assert len(tensors) == 3 * len(lora.layers)
    assert list(tmp_path.iterdir()) == [path]
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["ss_network_alpha"] == "2"


def test_beside_a_half_precision_base_it_learns_in_full_precision(
    load_tiny: Callable[..., StableDiffusion],
) -> None:
    base = load_tiny()
    base.denoiser.to(torch.bfloat16)
    lora = attach(base, rank=2, seed=0)
    perturb(lora.parameters())
    latents, timestep, conditioning, scale = inputs(base)
    noise = lora.model.predict_noise(latents.float(), timestep, conditioning, scale)
    noise.square().mean().backward()
    for parameter in lora.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
