"""Several adapters as one: the sum of their unfused branches; refused where their chains differ."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortft_core.adapter_card import CARD_FILE, Origin
from shortft_core.adapters import AdapterBank, carries_bank
from shortft_core.artifacts import file_sha256
from shortft_core.errors import DivergedError, UserError
from shortft_core.export import load_adapter, noise_schedule, read_adapter, save_adapter
from shortft_core.generate import Sampler, base_sampler
from shortft_core.lora_files import write_kohya
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.schedule import inference_plan
from shortft_core.serving import Scaled, serve
from shortft_core.spec import Source

LoadTiny = Callable[..., StableDiffusion]
PROMPTS, SEEDS = ("a red circle", "a blue star"), (1, 2)


def write(
    folder: Path, model: StableDiffusion, *, seed: int, rank: int, segments: int, steps: int = 6
) -> Path:
    plan = inference_plan(steps, segments)
    bank = AdapterBank(model.denoiser, branches=segments, rank=rank)
    generator = torch.Generator().manual_seed(seed)
    for branch in range(1, segments + 1):
        for weight in bank.parameters(branch):
            weight.data.normal_(0, 0.2, generator=generator)
    origin = Origin(
        base_model=Source(name="shapes"),
        base_sha256=model.fingerprint,
        method="shortft",
        guidance_scale=2.0,
        rewards=("symmetry",),
        spec_sha256="0" * 64,
        noise_schedule=noise_schedule(model, plan),
        segments=segments,
    )
    save_adapter(folder, bank, plan, origin, dtype=torch.float32)
    bank.detach()
    return folder


@pytest.fixture
def two(load_tiny: LoadTiny, tmp_path: Path) -> tuple[Path, Path]:
    """Adapters of other ranks and other segments on one grid."""
    model = load_tiny()
    return (
        write(tmp_path / "a", model, seed=1, rank=2, segments=2),
        write(tmp_path / "b", model, seed=2, rank=3, segments=3),
    )


def unfused(folders: Sequence[Path], scales: Sequence[float], model: StableDiffusion) -> Tensor:
    """The definition, by forward hooks on the base model's own layers."""
    read = [read_adapter(folder, model) for folder in folders]
    bank = AdapterBank(model.denoiser, branches=1, rank=1)
    layers = {name: layer.base for name, layer in bank.layers.items()}
    weights = [list(each.weights(bank)) for each in read]
    bank.detach()
    at = {"timestep": -1}
    plans = [{e.timestep: e.branches for e in each.card.plan} for each in read]

    def hook(name: str) -> Callable[[object, tuple[Tensor], Tensor], Tensor]:
        def add(_layer: object, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            for plan, branches, scale in zip(plans, weights, scales, strict=True):
                for branch in plan[at["timestep"]]:
                    down, up = branches[branch - 1][name]
                    output = output + scale * (inputs[0] @ down.T) @ up.T
            return output

        return add

    def note(_denoiser: object, inputs: tuple[object, Tensor, object]) -> None:
        at["timestep"] = int(inputs[1][0])

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    hooks.append(model.denoiser.register_forward_pre_hook(note))
    try:
        return base_sampler(model, steps=6, guidance_scale=2.0).images(PROMPTS, SEEDS)
    finally:
        for handle in hooks:
            handle.remove()


def test_two_adapters_equal_the_unfused_sum_of_their_branches(
    load_tiny: LoadTiny, two: tuple[Path, Path]
) -> None:
    model, scales = load_tiny(), (0.7, -0.4)
    sampler = serve([Scaled(*pair) for pair in zip(two, scales, strict=True)], model)
    expected = unfused(two, scales, load_tiny())
    assert (sampler.images(PROMPTS, SEEDS) - expected).abs().max() < 1e-4
    alone = serve([Scaled(two[0], 0.7)], model).images(PROMPTS, SEEDS)
    assert (expected - alone).abs().max() > 1e-2


def test_one_adapter_is_what_the_command_line_serves(
    load_tiny: LoadTiny, two: tuple[Path, Path]
) -> None:
    ours, theirs = serve([Scaled(two[1])], load_tiny()), load_adapter(two[1], load_tiny())
    assert torch.equal(ours.images(PROMPTS, SEEDS), theirs.images(PROMPTS, SEEDS))
    assert ours.plan == theirs.plan
    assert ours.adapter == theirs.adapter


def test_many_sets_serve_one_model_in_turn_and_leave_it_as_it_was(
    load_tiny: LoadTiny, two: tuple[Path, Path]
) -> None:
    model = load_tiny()
    base = base_sampler(model, steps=6, guidance_scale=2.0)
    before = base.images(PROMPTS, SEEDS)
    first, second = serve([Scaled(two[0])], model), serve([Scaled(two[1])], model)
    drawn = [sampler.images(PROMPTS, SEEDS) for sampler in (first, second, first)]
    assert torch.equal(drawn[0], drawn[2])
    assert (drawn[0] - drawn[1]).abs().max() > 1e-2
    assert torch.equal(base.images(PROMPTS, SEEDS), before)
    assert not carries_bank(model.denoiser)


def test_the_branches_themselves_are_not_kept(load_tiny: LoadTiny, two: tuple[Path, Path]) -> None:
    kept: list[weakref.ref[AdapterBank]] = []
    original = AdapterBank.__init__

    def spy(bank: AdapterBank, *args: object, **fields: object) -> None:
        original(bank, *args, **fields)  # type: ignore[arg-type]
        kept.append(weakref.ref(bank))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdapterBank, "__init__", spy)
        sampler: Sampler = serve([Scaled(two[0])], load_tiny())
    gc.collect()
    assert [reference() for reference in kept] == [None]
    assert sampler.images(["a"], [0]).shape == (1, 3, 16, 16)


def test_other_grids_and_foundations_are_refused(
    load_tiny: LoadTiny, two: tuple[Path, Path], tmp_path: Path
) -> None:
    model = load_tiny()
    shorter = write(tmp_path / "short", load_tiny(), seed=3, rank=2, segments=2, steps=4)
    with pytest.raises(UserError, match="different chains, of 6 and 4 steps") as caught:
        serve([Scaled(two[0]), Scaled(shorter)], model)
    assert caught.value.field == "adapters"
    card = json.loads((two[1] / CARD_FILE).read_text())
    card |= {"init_adapter": {"path": "x"}, "init_adapter_sha256": "1" * 64}
    (two[1] / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(UserError, match="merged into the base before"):
        serve([Scaled(two[0]), Scaled(two[1])], model)
    assert not carries_bank(model.denoiser)


def test_a_scale_beyond_the_format_is_refused_and_leaves_no_bank(
    load_tiny: LoadTiny, two: tuple[Path, Path]
) -> None:
    model = load_tiny()
    with pytest.raises(DivergedError, match="not finite"):
        serve([Scaled(two[0], 1e39)], model)
    assert not carries_bank(model.denoiser)


def test_a_negative_prompt_is_what_guidance_leads_away_from(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = model.encode_prompts(["a red circle"])
    away = model.with_negative_prompt("a blue star")
    predicted = away.predict_noise(latents, 301, conditioning, 3.0)
    ours = model.predict_noise(latents, 301, conditioning, 1.0)
    theirs = model.predict_noise(latents, 301, model.encode_prompts(["a blue star"]), 1.0)
    torch.testing.assert_close(predicted, theirs + 3.0 * (ours - theirs), rtol=0, atol=1e-5)
    assert (predicted - model.predict_noise(latents, 301, conditioning, 3.0)).abs().max() > 1e-3
    assert model.negative_prompt == ""


def test_what_was_merged_before_training_is_merged_again(
    load_tiny: LoadTiny, two: tuple[Path, Path], tmp_path: Path
) -> None:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v"
    foreign = tmp_path / "foreign.safetensors"
    weights = {layer: (torch.arange(8.0)[None], torch.arange(8.0)[:, None])}
    write_kohya(foreign, weights, dtype=torch.float32, header={})
    before = serve([Scaled(two[0])], load_tiny()).images(PROMPTS, SEEDS)
    card = json.loads((two[0] / CARD_FILE).read_text())
    card |= {"init_adapter": {"path": str(foreign)}, "init_adapter_sha256": file_sha256(foreign)}
    (two[0] / CARD_FILE).write_text(json.dumps(card))
    model = load_tiny()
    served = serve([Scaled(two[0])], model).images(PROMPTS, SEEDS)
    assert torch.equal(served, load_adapter(two[0], load_tiny()).images(PROMPTS, SEEDS))
    assert (served - before).abs().max() > 1e-3
    base = base_sampler(model, steps=2).images(PROMPTS, SEEDS)
    assert torch.equal(base, base_sampler(load_tiny(), steps=2).images(PROMPTS, SEEDS))
