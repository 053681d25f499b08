"""The SD family loader: what it gives, and what it refuses by name."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shortft_core import models
from shortft_core.adapters import AdapterBank
from shortft_core.errors import (
    MissingWeightsError,
    UnknownNameError,
    UserError,
    WeightsError,
)
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.spec import Source

LoadTiny = Callable[..., StableDiffusion]
UNET = Path("unet/diffusion_pytorch_model.safetensors")


def load(folder: Path) -> models.DiffusionModel:
    return models.load(Source(path=str(folder)), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_reads_geometry_and_schedule_from_the_folder(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    assert (model.image_size, model.pixels_per_latent) == (16, 2)
    assert model.latent_shape(16, 32) == (4, 8, 16)
    assert (model.train_timesteps, model.steps_offset) == (1000, 1)
    assert model.alphas_cumprod[981].item() == pytest.approx(0.0057755, abs=1e-7)
    assert model.alphas_cumprod[0].item() == pytest.approx(0.99915, abs=1e-12)


def test_nothing_of_the_base_model_is_trainable(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    for module in (model.denoiser, model.vae, model.text_encoder):
        assert not any(p.requires_grad for p in module.parameters())
        assert not module.training


def test_prompts_are_encoded_once(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    calls: list[int] = []
    model.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1), with_kwargs=True)
    first = model.encode_prompts(["a red", "a blue", "a red"])
    again = model.encode_prompts(["a blue"])
    assert calls == [1]
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[1:2], again)


def test_guidance_is_the_formula_and_scale_one_is_one_call(load_tiny: LoadTiny) -> None:
    model = load_tiny(double=True)
    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    conditioning = model.encode_prompts(["a red circle", "a star"])
    empty = model.encode_prompts(["", ""])
    conditional = model.predict_noise(latents, 301, conditioning, 1.0)
    unconditional = model.predict_noise(latents, 301, empty, 1.0)
    guided = model.predict_noise(latents, 301, conditioning, 7.5)
    expected = unconditional + 7.5 * (conditional - unconditional)
    torch.testing.assert_close(guided, expected, rtol=1e-10, atol=1e-10)
    sizes: list[int] = []
    model.denoiser.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    model.predict_noise(latents, 301, conditioning, 1.0)
    model.predict_noise(latents, 301, conditioning, 7.5)
    assert sizes == [2, 4]


def test_prompts_that_are_cut_are_named(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    fits, long = "a a a a a a", "a a a a a a a"
    assert model.overlong([long, fits, long, ""]) == [long]
    assert model.overlong([]) == []
    cut, whole = model.encode_prompts([long, fits])
    assert torch.equal(cut, whole)


def test_the_bundled_model_cuts_where_its_text_encoder_ends(
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = Source(name="shapes")
    model = models.load(source, device=torch.device("cpu"), dtype=torch.float32)
    prompts = ["a" + " red" * count for count in range(20, 40)]
    cut = model.overlong(prompts)
    whole = prompts[-len(cut) - 1]
    assert prompts[-len(cut) :] == cut
    before, same, also = model.encode_prompts([whole, f"{whole} blue", f"{whole} star"])
    assert torch.equal(before, same)
    assert torch.equal(before, also)
    shorter, other = model.encode_prompts([prompts[0], f"{prompts[0]} blue"])
    assert not torch.equal(shorter, other)
    assert "longer than" not in capfd.readouterr().err


def test_another_denoiser_leaves_the_model_as_it_was(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    before, shared = model.fingerprint, model.encode_prompts(["a red circle"])
    denoiser = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.mul_(0.5)
    other = model.with_denoiser(denoiser, fingerprint_suffix="shortcut")
    latents = torch.randn(1, 4, 8, 8)
    own, base = (m.predict_noise(latents, 301, shared, 7.5) for m in (other, model))
    assert not torch.equal(own, base)
    assert torch.equal(base, load_tiny().predict_noise(latents, 301, shared, 7.5))
    assert torch.equal(other.decode(latents), model.decode(latents))
    assert (model.fingerprint, model.denoiser) != (other.fingerprint, other.denoiser)
    assert model.fingerprint == before
    assert other.fingerprint == hashlib.sha256(f"{before}shortcut".encode()).hexdigest()


def test_models_with_several_denoisers_encode_a_prompt_once(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    other = model.with_denoiser(model.denoiser, fingerprint_suffix="1")
    calls: list[int] = []
    model.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1), with_kwargs=True)
    torch.testing.assert_close(other.encode_prompts(["a"]), model.encode_prompts(["a"]))
    assert calls == [1]


def test_decoding_carries_gradient_to_every_latent(load_tiny: LoadTiny) -> None:
    latents = torch.randn(1, 4, 8, 8, requires_grad=True)
    images = load_tiny().decode(latents)
    assert images.shape == (1, 3, 16, 16)
    images.square().mean().backward()
    assert latents.grad is not None
    assert (latents.grad != 0).all()


@pytest.mark.parametrize(("height", "width", "field"), [(15, 16, "height"), (16, 17, "width")])
def test_sizes_off_the_vae_factor_are_refused(
    load_tiny: LoadTiny, height: int, width: int, field: str
) -> None:
    with pytest.raises(UserError, match="not a multiple of 2") as caught:
        load_tiny().latent_shape(height, width)
    assert caught.value.field == field


def test_the_fingerprint_follows_the_weights(folder: Path, tiny_folder: Path) -> None:
    assert load(folder).fingerprint == load(tiny_folder).fingerprint
    tensors = load_file(folder / UNET)
    tensors["conv_in.bias"] += 1
    save_file(tensors, folder / UNET, metadata={"format": "pt"})
    assert load(folder).fingerprint != load(tiny_folder).fingerprint


def test_the_fingerprint_is_that_of_the_base_whatever_is_attached(load_tiny: LoadTiny) -> None:
    before = load_tiny().fingerprint
    model = load_tiny()
    AdapterBank(model.denoiser, branches=1, rank=2)
    assert model.fingerprint == before


def test_half_precision_files_are_loaded_in_the_wanted_precision(folder: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in load_file(folder / UNET).items()}
    save_file(tensors, folder / UNET, metadata={"format": "pt"})
    parameters = load(folder).denoiser.parameters()
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model_index\.json is missing"):
        load(tmp_path)


def test_another_family_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(UserError, match="FluxPipeline"):
        load(folder)


def test_an_absent_part_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    with pytest.raises(MissingWeightsError, match="no folder vae"):
        load(folder)


def test_an_absent_file_is_named(folder: Path) -> None:
    (folder / UNET).unlink()
    with pytest.raises(MissingWeightsError, match=r"holds no diffusion_pytorch_model\.safetensors"):
        load(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    torch.save(tensors, (folder / UNET).with_suffix(".bin"))
    (folder / UNET).unlink()
    with pytest.raises(MissingWeightsError, match="safe_serialization=True"):
        load(folder)


def test_an_empty_tokenizer_folder_is_refused(folder: Path) -> None:
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(MissingWeightsError, match=r"tokenizer\.json"):
        load(folder)


@pytest.mark.parametrize("name", ["model_index.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize(("text", "problem"), [("{", "is not JSON"), ("[]", "no JSON object")])
def test_broken_configurations_are_named(folder: Path, name: str, text: str, problem: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(WeightsError, match=problem):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [{"trained_betas": [0.1]}, {"rescale_betas_zero_snr": True}, {"set_alpha_to_one": True}],
)
def test_schedules_that_our_step_does_not_know_are_refused(
    folder: Path, change: dict[str, object]
) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=next(iter(change))):
        load(folder)


def test_missing_and_extra_keys_are_named(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    removed = tensors.pop("conv_in.bias")
    save_file(tensors, folder / UNET, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"conv_in\.bias"):
        load(folder)
    save_file(
        {**tensors, "conv_in.bias": removed, "extra.weight": removed.clone()},
        folder / UNET,
        metadata={"format": "pt"},
    )
    with pytest.raises(WeightsError, match=r"extra\.weight"):
        load(folder)


def test_weights_that_are_not_finite_are_named(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    tensors["conv_in.bias"][0] = float("nan")
    save_file(tensors, folder / UNET, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"NaN or infinite values in conv_in\.bias"):
        load(folder)


def test_a_torn_file_is_refused(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:500])
    with pytest.raises(WeightsError, match="unet"):
        load(folder)


def test_a_model_that_predicts_something_else_is_refused(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"prediction_type": "v_prediction"}
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="v_prediction"):
        load(folder)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean shapes"):
        models.load(Source(name="shape"), device=torch.device("cpu"), dtype=torch.float32)


def test_a_hub_model_is_refused_offline_with_a_remedy() -> None:
    with pytest.raises(MissingWeightsError, match="shortft models fetch"):
        models.load(Source(name="sd15"), device=torch.device("cpu"), dtype=torch.float32)
