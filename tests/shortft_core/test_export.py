"""Adapter folders: exact round trip, equal in diffusers, refused where they do not belong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors import safe_open

from shortft_core.adapters import AdapterBank
from shortft_core.errors import ArtifactError, UserError
from shortft_core.export import AdapterCard, Origin, load_adapter, save_adapter
from shortft_core.generate import Sampler, base_sampler
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.sampling import initial_latents
from shortft_core.schedule import base_plan
from shortft_core.spec import Source

LoadTiny = Callable[..., StableDiffusion]
PLAN = base_plan(6, branches=(1,))


def tuned(load_tiny: LoadTiny) -> Sampler:
    model = load_tiny()
    bank = AdapterBank(model.denoiser, branches=1, rank=3)
    generator = torch.Generator().manual_seed(4)
    for weight in bank.parameters(1):
        # Values that fp16 holds exactly, so that the round trip may be compared bit for bit.
        drawn = torch.randint(-8, 9, weight.shape, generator=generator) / 32
        weight.data.copy_(drawn)
    return Sampler(model=model, plan=PLAN, guidance_scale=2.0, bank=bank)


def save(folder: Path, sampler: Sampler) -> AdapterCard:
    assert sampler.bank is not None
    return save_adapter(
        folder,
        sampler.bank,
        sampler.plan,
        Origin(
            base_model=Source(name="shapes"),
            base_sha256=sampler.model.fingerprint,
            method="draft_k",
            guidance_scale=sampler.guidance_scale,
            rewards=("symmetry",),
            spec_sha256="0" * 64,
        ),
    )


def test_round_trip_gives_the_same_images(load_tiny: LoadTiny, tmp_path: Path) -> None:
    sampler = tuned(load_tiny)
    save(tmp_path, sampler)
    loaded = load_adapter(tmp_path, load_tiny())
    assert (loaded.plan, loaded.guidance_scale) == (PLAN, 2.0)
    assert torch.equal(loaded.images(["a red"], [3]), sampler.images(["a red"], [3]))
    base = base_sampler(load_tiny(), steps=6, guidance_scale=2.0).images(["a red"], [3])
    assert (loaded.images(["a red"], [3]) - base).abs().max() > 0.01


def test_files_carry_a_true_alpha_and_headers(load_tiny: LoadTiny, tmp_path: Path) -> None:
    card = save(tmp_path, tuned(load_tiny))
    with safe_open(tmp_path / card.branches[0], framework="pt") as file:
        keys = list(file.keys())
        alphas = {file.get_tensor(key).item() for key in keys if key.endswith(".alpha")}
        assert alphas == {3.0}
        assert file.metadata()["ss_network_dim"] == "3"
        assert all(key.startswith("lora_unet_") for key in keys)


def test_diffusers_loads_the_branch_with_equal_images(
    load_tiny: LoadTiny, tiny_folder: Path, tmp_path: Path
) -> None:
    sampler = tuned(load_tiny)
    card = save(tmp_path, sampler)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name=card.branches[0])
    theirs = pipeline(
        ["a red circle"],
        num_inference_steps=6,
        guidance_scale=2.0,
        latents=initial_latents([8], (4, 8, 8)),
        output_type="pt",
    ).images
    ours = sampler.images(["a red circle"], [8])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_scale_zero_serves_the_base_model(load_tiny: LoadTiny, tmp_path: Path) -> None:
    save(tmp_path, tuned(load_tiny))
    silent = load_adapter(tmp_path, load_tiny(), scale=0.0).images(["a"], [1])
    base = base_sampler(load_tiny(), steps=6, guidance_scale=2.0).images(["a"], [1])
    torch.testing.assert_close(silent, base, rtol=0, atol=0)


def test_another_base_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    save(tmp_path, tuned(load_tiny))
    path = tmp_path / "shortft.json"
    card = json.loads(path.read_text()) | {"base_sha256": "f" * 64}
    path.write_text(json.dumps(card))
    with pytest.raises(UserError, match="another base model"):
        load_adapter(tmp_path, load_tiny())


def test_changed_or_missing_files_are_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    card = save(tmp_path, tuned(load_tiny))
    path = tmp_path / card.branches[0]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="changed after it was written"):
        load_adapter(tmp_path, load_tiny())
    path.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        load_adapter(tmp_path, load_tiny())


def test_a_refused_adapter_leaves_the_model_as_it_was(load_tiny: LoadTiny, tmp_path: Path) -> None:
    card = save(tmp_path / "good", tuned(load_tiny))
    save(tmp_path / "torn", tuned(load_tiny))
    (tmp_path / "torn" / card.branches[0]).write_bytes(b"")
    model = load_tiny()
    with pytest.raises(ArtifactError):
        load_adapter(tmp_path / "torn", model)
    assert load_adapter(tmp_path / "good", model).plan == PLAN


def test_saving_again_replaces_the_whole_folder(load_tiny: LoadTiny, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save(folder, tuned(load_tiny))
    (folder / "stray").touch()
    save(folder, tuned(load_tiny))
    assert {p.name for p in folder.iterdir()} == {"branch_1.safetensors", "shortft.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_without_card_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no shortft\.json"):
        load_adapter(tmp_path, load_tiny())


def test_a_card_of_another_form_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    (tmp_path / "shortft.json").write_text('{"version": 1}')
    with pytest.raises(ArtifactError, match="not an adapter card"):
        load_adapter(tmp_path, load_tiny())
