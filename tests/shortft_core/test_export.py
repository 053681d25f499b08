"""Adapter folders: exact round trip, equal in diffusers and peft, refused where foreign."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from peft import PeftModel
from safetensors import safe_open
from torch import nn

from shortft_core import shortcuts
from shortft_core.adapter_card import AdapterCard, Origin, read_card
from shortft_core.adapters import AdapterBank
from shortft_core.errors import ArtifactError, UserError
from shortft_core.export import load_adapter, noise_schedule, save_adapter
from shortft_core.generate import Sampler, base_sampler
from shortft_core.lora_files import write_kohya
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.sampling import initial_latents
from shortft_core.schedule import Plan, base_plan, few_step_plan, inference_plan
from shortft_core.spec import Source

LoadTiny = Callable[..., StableDiffusion]
PLAN = inference_plan(8, 3)
"""Stacks (1,), (), (1, 2) and (1, 2, 3)."""
# peft warns of the second adapter of a model, which is what a segmented adapter is.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")


def tuned(model: StableDiffusion, plan: Plan = PLAN) -> Sampler:
    bank = AdapterBank(
        model.denoiser, branches=max(max(e.branches, default=0) for e in plan), rank=3
    )
    generator = torch.Generator().manual_seed(4)
    for branch in range(1, bank.branches + 1):
        for weight in bank.parameters(branch):
            # Values that fp16 holds exactly, so that the round trip may be compared bit for bit.
            drawn = torch.randint(-8, 9, weight.shape, generator=generator) / 32
            weight.data.copy_(drawn)
    return Sampler(model=model, plan=plan, guidance_scale=2.0, bank=bank)


def save(folder: Path, sampler: Sampler, **changes: Any) -> AdapterCard:
    assert sampler.bank is not None
    dtype = changes.pop("dtype", torch.float16)
    origin = {
        "base_model": Source(name="shapes"),
        "base_sha256": sampler.model.fingerprint,
        "method": "shortft",
        "guidance_scale": sampler.guidance_scale,
        "rewards": ("symmetry",),
        "reward_weights": (1.0,),
        "spec_sha256": "0" * 64,
        "noise_schedule": noise_schedule(sampler.model, sampler.plan),
        "segments": 3,
    }
    return save_adapter(
        folder,
        sampler.bank,
        sampler.plan,
        Origin.model_validate({**origin, **changes}),
        dtype=dtype,
    )


def edit(folder: Path, **changes: object) -> None:
    path = folder / "shortft.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def lora(path: Path, model: StableDiffusion) -> Path:
    """A foreign LoRA over one layer of the tiny model."""
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    weights = {layer: (torch.full((1, 8), 0.5), torch.full((8, 1), 0.5))}
    write_kohya(path, weights, dtype=torch.float32, header={})
    return path


def test_round_trip_gives_the_same_images(load_tiny: LoadTiny, tmp_path: Path) -> None:
    sampler = tuned(load_tiny())
    save(tmp_path, sampler)
    loaded = load_adapter(tmp_path, load_tiny(), steps=8)
    assert (loaded.plan, loaded.guidance_scale) == (PLAN, 2.0)
    images = loaded.images(["a red"], [1])
    assert torch.equal(images, sampler.images(["a red"], [1]))
    base = base_sampler(load_tiny(), steps=8, guidance_scale=2.0).images(["a red"], [1])
    assert (images - base).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_weights_come_back_bit_for_bit_in_the_precision_saved(
    load_tiny: LoadTiny, tmp_path: Path, dtype: torch.dtype
) -> None:
    sampler = tuned(load_tiny())
    assert sampler.bank is not None
    for branch in (1, 2, 3):
        for weight in sampler.bank.parameters(branch):
            weight.data.mul_(1 / 3)
    save(tmp_path, sampler, dtype=dtype)
    loaded = load_adapter(tmp_path, load_tiny())
    assert loaded.bank is not None
    for branch in (1, 2, 3):
        pairs = zip(sampler.bank.parameters(branch), loaded.bank.parameters(branch), strict=True)
        assert all(torch.equal(ours.to(dtype).float(), theirs) for ours, theirs in pairs)


def test_files_carry_a_true_alpha_and_headers(load_tiny: LoadTiny, tmp_path: Path) -> None:
    card = save(tmp_path, tuned(load_tiny()))
    headers = []
    for name in card.branches:
        with safe_open(tmp_path / name, framework="pt") as file:
            keys = list(file.keys())
            alphas = {file.get_tensor(key).item() for key in keys if key.endswith(".alpha")}
            headers.append(file.metadata())
        assert alphas == {3.0}
        assert all(key.startswith("lora_unet_") for key in keys)
    assert {header["ss_network_dim"] for header in headers} == {"3"}
    # Grid 876, 751, ..., 1 in segments of 2, 3 and 3 steps; branch i begins with segment i's end.
    ranges = [header["modelspec.timestep_range"] for header in headers]
    assert ranges == ["1,876", "1,376", "1,1"]


def test_the_card_tells_where_everything_came_from(load_tiny: LoadTiny, tmp_path: Path) -> None:
    model = load_tiny()
    save(tmp_path, tuned(model), shortcut=Source(name="shapes-shortcut"), shortcut_sha256="e" * 64)
    card = read_card(tmp_path)
    assert card.noise_schedule is not None
    assert len(card.noise_schedule.alphas_cumprod) == 8
    assert card.noise_schedule.alphas_cumprod[-1] == model.alphas_cumprod[1].item()
    assert (card.segments, str(card.shortcut)) == (3, "shapes-shortcut")
    assert card.stacks == ((1,), (1,), (), (), (1, 2), (), (), (1, 2, 3))


def test_diffusers_and_peft_run_every_stack_as_we_do(load_tiny: LoadTiny, tmp_path: Path) -> None:
    sampler = tuned(load_tiny())
    card = save(tmp_path, sampler, dtype=torch.float32)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    inputs = (latents, torch.tensor([501]), torch.randn(1, 8, 16))
    assert sampler.bank is not None
    diffusers = with_diffusers(load_tiny().denoiser, tmp_path, card)
    peft = with_peft(load_tiny().denoiser, tmp_path)
    seen: list[torch.Tensor] = []
    for stack in ((1,), (1, 2), (1, 2, 3), (2,)):
        names = [f"branch_{branch}" for branch in stack]
        diffusers.set_adapters(names)
        peft.base_model.set_adapter(names)
        with torch.no_grad(), sampler.bank.stack(stack):
            ours = sampler.model.denoiser(*inputs).sample
        with torch.no_grad():
            torch.testing.assert_close(ours, diffusers(*inputs).sample, rtol=0, atol=1e-5)
            torch.testing.assert_close(ours, peft(*inputs).sample, rtol=0, atol=1e-5)
        assert not any(torch.equal(ours, other) for other in seen), "each stack acts otherwise"
        seen.append(ours)


def with_diffusers(denoiser: nn.Module, folder: Path, card: AdapterCard) -> UNet2DConditionModel:
    assert isinstance(denoiser, UNet2DConditionModel)
    for name in card.branches:
        tensors, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(
            str(folder), weight_name=name, unet_config=denoiser.config
        )
        StableDiffusionLoraLoaderMixin.load_lora_into_unet(
            tensors, alphas, denoiser, adapter_name=Path(name).stem
        )
    return denoiser


def with_peft(denoiser: nn.Module, folder: Path) -> PeftModel:
    first, *others = (folder / "peft" / f"branch_{branch}" for branch in (1, 2, 3))
    wrapped = PeftModel.from_pretrained(denoiser, str(first), adapter_name="branch_1")
    for path in others:
        wrapped.load_adapter(str(path), adapter_name=path.name)
    return wrapped


def test_the_snippet_of_the_readme_makes_our_image(
    load_tiny: LoadTiny, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = tuned(load_tiny())
    save(tmp_path, sampler, base_model=Source(path=str(tiny_folder)))
    _, _, rest = (tmp_path / "README.md").read_text().partition("```python\n")
    snippet = rest.partition("```")[0].replace("a prompt", "a red circle")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), names)  # noqa: S102 - the snippet is what is tested
    ours = sampler.images(["a red circle"], [0])
    torch.testing.assert_close(ours, names["images"], rtol=0, atol=1e-4)


def test_diffusers_loads_a_branch_of_all_steps_with_equal_images(
    load_tiny: LoadTiny, tiny_folder: Path, tmp_path: Path
) -> None:
    sampler = tuned(load_tiny(), base_plan(6, branches=(1,)))
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
    save(tmp_path, tuned(load_tiny()))
    silent = load_adapter(tmp_path, load_tiny(), scale=0.0).images(["a"], [1])
    base = base_sampler(load_tiny(), steps=8, guidance_scale=2.0).images(["a"], [1])
    torch.testing.assert_close(silent, base, rtol=0, atol=0)


def test_another_base_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    save(tmp_path, tuned(load_tiny()), base_sha256="f" * 64)
    with pytest.raises(UserError, match=r"another base model\. Load it on shapes"):
        load_adapter(tmp_path, load_tiny())


def test_another_number_of_steps_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    save(tmp_path, tuned(load_tiny()))
    with pytest.raises(UserError, match=r"serves a chain of 8 steps only\. Use 8 steps"):
        load_adapter(tmp_path, load_tiny(), steps=50)


@pytest.mark.parametrize("change", ["offset", "levels", "betas"])
def test_another_noise_schedule_is_refused(
    load_tiny: LoadTiny, tmp_path: Path, change: str
) -> None:
    save(tmp_path, tuned(load_tiny()))
    model = load_tiny()
    if change == "offset":
        model.steps_offset = 0
    elif change == "levels":
        model.train_timesteps = 500
    else:
        model.alphas_cumprod = model.alphas_cumprod * 0.999
    with pytest.raises(UserError, match="a grid that the scheduler of this model does not give"):
        load_adapter(tmp_path, model)


def test_timesteps_that_no_scheduler_gives_are_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    card = save(tmp_path, tuned(load_tiny()))
    shifted = [t - 1 for t in card.timesteps[:-1]] + [1]
    edit(tmp_path, timesteps=shifted, next_timesteps=[*shifted[1:], -1], noise_schedule=None)
    with pytest.raises(UserError, match="does not give"):
        load_adapter(tmp_path, load_tiny())
    edit(tmp_path, timesteps=shifted[:-1])
    with pytest.raises(ArtifactError, match="no whole chain"):
        load_adapter(tmp_path, load_tiny())


def test_a_rank_that_the_files_do_not_have_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    save(tmp_path, tuned(load_tiny()))
    edit(tmp_path, rank=4)
    with pytest.raises(ArtifactError, match=r"has rank \[3\], its card says 4"):
        load_adapter(tmp_path, load_tiny())


@pytest.mark.parametrize("kind", ["few_step", "init_adapter"])
def test_what_was_merged_first_is_merged_again(
    load_tiny: LoadTiny, tmp_path: Path, kind: str
) -> None:
    base = load_tiny()
    source = Source(path=str(lora(tmp_path / "lora.safetensors", base)))
    if kind == "few_step":
        found = shortcuts.few_step(source, base, 4)
        model, sha256 = found.model, found.sha256
        plan = few_step_plan(4, spacing=found.spacing, branches=(1,))
    else:
        model, sha256 = shortcuts.with_lora(source, base)
        plan = PLAN
    assert isinstance(model, StableDiffusion)
    sampler = tuned(model, plan)
    merged_first: dict[str, Any] = {kind: source, f"{kind}_sha256": sha256}
    save(
        tmp_path / "adapter",
        sampler,
        base_sha256=base.fingerprint,
        segments=4 if kind == "few_step" else 3,
        **merged_first,
    )
    loaded = load_adapter(tmp_path / "adapter", base)
    ours, again = (chosen.images(["a red"], [3]) for chosen in (sampler, loaded))
    assert torch.equal(ours, again)
    assert base_sampler(base, steps=2).images(["a"], [0]).isfinite().all()
    assert "only `shortft` does" in (tmp_path / "adapter" / "README.md").read_text()
    edit(tmp_path / "adapter", **{f"{kind}_sha256": "0" * 64})
    with pytest.raises(ArtifactError, match="no longer the file"):
        load_adapter(tmp_path / "adapter", load_tiny())


def test_changed_or_missing_files_are_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    card = save(tmp_path, tuned(load_tiny()))
    path = tmp_path / card.branches[0]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="changed after it was written"):
        load_adapter(tmp_path, load_tiny())
    path.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        load_adapter(tmp_path, load_tiny())


def test_a_refused_adapter_leaves_the_model_as_it_was(load_tiny: LoadTiny, tmp_path: Path) -> None:
    card = save(tmp_path / "good", tuned(load_tiny()))
    save(tmp_path / "torn", tuned(load_tiny()))
    (tmp_path / "torn" / card.branches[0]).write_bytes(b"")
    model = load_tiny()
    with pytest.raises(ArtifactError):
        load_adapter(tmp_path / "torn", model)
    assert load_adapter(tmp_path / "good", model).plan == PLAN


def test_saving_again_replaces_the_whole_folder(load_tiny: LoadTiny, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save(folder, tuned(load_tiny()))
    (folder / "stray").touch()
    save(folder, tuned(load_tiny()))
    assert {p.name for p in folder.iterdir()} == {
        "README.md",
        "branch_1.safetensors",
        "branch_2.safetensors",
        "branch_3.safetensors",
        "peft",
        "shortft.json",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_without_card_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no shortft\.json"):
        load_adapter(tmp_path, load_tiny())


def test_a_card_of_another_form_is_refused(load_tiny: LoadTiny, tmp_path: Path) -> None:
    (tmp_path / "shortft.json").write_text('{"version": 1}')
    with pytest.raises(ArtifactError, match="not an adapter card"):
        load_adapter(tmp_path, load_tiny())
