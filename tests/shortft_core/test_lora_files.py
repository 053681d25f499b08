"""LoRA files: every key style gives the same increment, merging is exact, the rest is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shortft_core.adapters import AdapterBank
from shortft_core.errors import ArtifactError, MissingWeightsError, WeightsError
from shortft_core.lora_files import (
    LowRank,
    merge_into,
    module_key,
    read_lora,
    write_kohya,
    write_peft,
)
from shortft_core.models.stable_diffusion import StableDiffusion

LoadTiny = Callable[..., StableDiffusion]
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"
POINTWISE = "down_blocks.0.attentions.0.proj_in"


def factors(denoiser: nn.Module, name: str, rank: int = 3) -> tuple[Tensor, Tensor]:
    """Down and up of one module in the layout of its kind."""
    generator = torch.Generator().manual_seed(len(name))
    weight = denoiser.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    tail = (1, 1) if weight.ndim == 4 else ()
    down = torch.randn(rank, *weight.shape[1:], generator=generator)
    return down, torch.randn(weight.shape[0], rank, *tail, generator=generator)


def weight_of(denoiser: nn.Module, name: str) -> Tensor:
    weight = denoiser.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def save(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str] | None = None) -> Path:
    save_file(dict(tensors), path, metadata=header)
    return path


def styled(style: str, name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    key = f"lora_unet_{module_key(name)}"
    return {
        "kohya": {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up},
        "diffusers": {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up},
        "diffusers, old": {
            f"unet.{name}.lora.down.weight": down,
            f"unet.{name}.lora.up.weight": up,
        },
        "peft": {
            f"base_model.model.{name}.lora_A.weight": down,
            f"base_model.model.{name}.lora_B.weight": up,
        },
    }[style]


STYLES = ("kohya", "diffusers", "diffusers, old", "peft")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", [LINEAR, CONV, POINTWISE])
def test_every_key_style_gives_the_same_sum(
    load_tiny: LoadTiny, tmp_path: Path, style: str, name: str
) -> None:
    denoiser = load_tiny().denoiser
    before = copy.deepcopy(denoiser.state_dict())
    down, up = factors(denoiser, name)
    path = save(tmp_path / "lora.safetensors", styled(style, name, down, up))
    deltas = read_lora(path, field="lora", scale=0.125)
    merge_into(denoiser, deltas)
    product = torch.einsum("or,ri->oi", up.flatten(1).double(), down.flatten(1).double())
    expected = before[f"{name}.weight"].double() + 0.125 * product.reshape(
        before[f"{name}.weight"].shape
    )
    after = denoiser.state_dict()
    torch.testing.assert_close(after[f"{name}.weight"].double(), expected, rtol=0, atol=1e-5)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == [f"{name}.weight"]


def test_merging_a_convolution_is_the_low_rank_convolution(load_tiny: LoadTiny) -> None:
    denoiser = load_tiny(double=True).denoiser
    conv = denoiser.get_submodule(CONV)
    assert isinstance(conv, nn.Conv2d)
    down, up = (part.double() for part in factors(denoiser, CONV))
    x = torch.randn(2, conv.in_channels, 5, 5, dtype=torch.float64)
    narrow = nn.functional.conv2d(x, down, padding=1)
    expected = conv(x) + 0.5 * nn.functional.conv2d(narrow, up)
    merge_into(denoiser, {module_key(CONV): LowRank(down, up, 0.5)})
    torch.testing.assert_close(conv(x), expected, rtol=1e-10, atol=1e-10)


def test_alpha_of_the_file_wins_over_a_scale(load_tiny: LoadTiny, tmp_path: Path) -> None:
    down, up = factors(load_tiny().denoiser, LINEAR, rank=4)
    tensors = styled("kohya", LINEAR, down, up)
    tensors[f"lora_unet_{module_key(LINEAR)}.alpha"] = torch.tensor(1.0, dtype=torch.float16)
    path = save(tmp_path / "lora.safetensors", tensors)
    (delta,) = read_lora(path, field="lora", scale=7.0).values()
    assert delta.scale == 0.25


def test_alpha_of_the_header_of_diffusers_is_applied(load_tiny: LoadTiny, tmp_path: Path) -> None:
    down, up = factors(load_tiny().denoiser, LINEAR, rank=4)
    header = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 8})}
    path = save(tmp_path / "lora.safetensors", styled("diffusers", LINEAR, down, up), header)
    (delta,) = read_lora(path, field="lora").values()
    assert delta.scale == 2.0


def test_alpha_beside_a_peft_file_is_applied(load_tiny: LoadTiny, tmp_path: Path) -> None:
    down, up = factors(load_tiny().denoiser, LINEAR, rank=4)
    path = save(tmp_path / "adapter_model.safetensors", styled("peft", LINEAR, down, up))
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 2, "bias": "none"}')
    (delta,) = read_lora(path, field="lora").values()
    assert delta.scale == 0.5


@pytest.mark.parametrize("style", STYLES)
def test_a_strength_that_is_stated_nowhere_is_refused(
    load_tiny: LoadTiny, tmp_path: Path, style: str
) -> None:
    down, up = factors(load_tiny().denoiser, LINEAR)
    path = save(tmp_path / "lora.safetensors", styled(style, LINEAR, down, up))
    with pytest.raises(WeightsError, match="states no alpha"):
        read_lora(path, field="method.init_adapter")


def test_an_untouched_file_of_peft_is_read_as_peft_applies_it(
    load_tiny: LoadTiny, tmp_path: Path
) -> None:
    """The file of peft's own writer, alpha other than the rank, against peft's own merge."""
    from peft import LoraConfig, get_peft_model

    ours, theirs = load_tiny().denoiser, load_tiny().denoiser
    config = LoraConfig(
        r=2, lora_alpha=8, target_modules=["to_q", "conv1"], init_lora_weights=False
    )
    wrapped = get_peft_model(theirs, config)
    wrapped.save_pretrained(str(tmp_path))
    merge_into(ours, read_lora(tmp_path / "adapter_model.safetensors", field="lora"))
    merged = wrapped.merge_and_unload().state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-5)


@given(rank=st.integers(1, 5), scale=st.floats(-2, 2), columns=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_merging_twice_is_merging_the_sum(rank: int, scale: float, columns: int) -> None:
    linear = nn.ModuleDict({"to_q": nn.Linear(columns, 4, dtype=torch.float64)})
    start = weight_of(linear, "to_q").clone()
    down, up = (
        torch.randn(rank, columns, dtype=torch.float64),
        torch.randn(4, rank, dtype=torch.float64),
    )
    for _ in range(2):
        merge_into(linear, {"to_q": LowRank(down, up, 0.5)}, scale)
    torch.testing.assert_close(weight_of(linear, "to_q"), start + scale * up @ down)


def test_the_sum_is_rounded_once(load_tiny: LoadTiny) -> None:
    half, single = load_tiny().denoiser, load_tiny().denoiser
    half.half()
    single.load_state_dict(half.state_dict())
    down, up = factors(single, LINEAR)
    delta = {module_key(LINEAR): LowRank(down.half(), up.half(), 1.0)}
    merge_into(half, delta)
    merge_into(single, delta)
    assert torch.equal(weight_of(half, LINEAR), weight_of(single, LINEAR).half())


REFUSALS = {
    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": "tunes a text encoder",
    "text_encoder.text_model.lora_A.weight": "tunes a text encoder",
    "transformer.blocks.0.to_q.lora_A.weight": "belongs to a transformer",
    "lora_unet_to_q.hada_w1_a": "no part of a plain LoRA",
    "lora_unet_to_q.dora_scale": "no part of a plain LoRA",
    "lora_unet_to_q.lora_mid.weight": "no part of a plain LoRA",
    "lora_unet_to_q.lora_down.weight": "holds only down",
}


@pytest.mark.parametrize("key", REFUSALS)
def test_what_is_no_plain_unet_lora_is_refused_by_name(tmp_path: Path, key: str) -> None:
    path = save(tmp_path / "lora.safetensors", {key: torch.ones(2, 2)})
    with pytest.raises(WeightsError, match=REFUSALS[key]) as caught:
        read_lora(path, field="method.init_adapter", scale=1.0)
    assert caught.value.field == "method.init_adapter"
    assert caught.value.remedy


@pytest.mark.parametrize("variant", ["use_dora", "use_rslora"])
def test_variants_of_peft_are_refused(tmp_path: Path, variant: str) -> None:
    tensors = styled("peft", "to_q", torch.ones(1, 2), torch.ones(2, 1))
    path = save(tmp_path / "adapter_model.safetensors", tensors)
    config = {"r": 1, "lora_alpha": 1, variant: True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=variant):
        read_lora(path, field="lora")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match="broken JSON"):
        read_lora(path, field="lora")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = styled("kohya", "to_q", torch.full((1, 2), torch.nan), torch.ones(2, 1))
    with pytest.raises(WeightsError, match="NaN or infinite"):
        read_lora(save(tmp_path / "lora.safetensors", tensors), field="lora", scale=1.0)
    with pytest.raises(MissingWeightsError, match="is missing"):
        read_lora(tmp_path / "other.safetensors", field="lora")


def test_halves_that_do_not_join_are_refused(tmp_path: Path) -> None:
    tensors = styled("kohya", "to_q", torch.ones(2, 4), torch.ones(4, 3))
    with pytest.raises(WeightsError, match="which do not join"):
        read_lora(save(tmp_path / "lora.safetensors", tensors), field="lora", scale=1.0)


def test_a_lora_of_another_model_is_refused_and_changes_nothing(load_tiny: LoadTiny) -> None:
    denoiser = load_tiny().denoiser
    before = copy.deepcopy(denoiser.state_dict())
    good = LowRank(*factors(denoiser, LINEAR), 1.0)
    wide = LowRank(torch.ones(1, 320), torch.ones(320, 1), 1.0)
    for key, problem in {
        "elsewhere_to_q": "elsewhere_to_q names no Linear",
        module_key(CONV): r"has shape \(320, 320\) instead of \(8, 8, 3, 3\)",
    }.items():
        with pytest.raises(WeightsError, match=problem):
            merge_into(denoiser, {module_key(LINEAR): good, key: wide})
    huge = LowRank(torch.full((1, 8), 3e38), torch.full((8, 1), 3e38), 1.0)
    with pytest.raises(WeightsError, match=r"not finite in torch\.float32"):
        merge_into(denoiser, {module_key(POINTWISE): good, module_key(LINEAR): huge})
    after = denoiser.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_nothing_is_merged_below_a_bank(load_tiny: LoadTiny) -> None:
    denoiser = load_tiny().denoiser
    bank = AdapterBank(denoiser, branches=1, rank=2)
    with pytest.raises(ArtifactError, match="merge LoRA files before it"):
        merge_into(denoiser, {})
    bank.detach()
    merge_into(denoiser, {})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_written_files_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    down, up = torch.randn(2, 4).to(dtype), torch.randn(4, 2).to(dtype)
    write_kohya(tmp_path / "a.safetensors", {"b.to_q": (down, up)}, dtype=dtype, header={"ss": "1"})
    write_peft(tmp_path / "peft", {"b.to_q": (down, up)}, dtype=dtype)
    for path in (tmp_path / "a.safetensors", tmp_path / "peft" / "adapter_model.safetensors"):
        ((key, delta),) = read_lora(path, field="lora").items()
        assert (key, delta.scale) == ("b_to_q", 1.0)
        assert torch.equal(delta.down, down)
        assert torch.equal(delta.up, up)
        assert {tensor.dtype for tensor in load_file(path).values()} == {dtype}


def test_diffusers_applies_a_written_file_as_we_merge_it(
    load_tiny: LoadTiny, tiny_folder: Path, tmp_path: Path
) -> None:
    ours = load_tiny().denoiser
    weights = {name: factors(ours, name) for name in (LINEAR, CONV, POINTWISE)}
    write_kohya(tmp_path / "lora.safetensors", weights, dtype=torch.float32, header={})
    merge_into(ours, read_lora(tmp_path / "lora.safetensors", field="lora"))
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
    theirs = pipeline.unet
    assert isinstance(theirs, UNet2DConditionModel)
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor([501]), torch.randn(1, 8, 16))
    torch.testing.assert_close(ours(*inputs).sample, theirs(*inputs).sample, rtol=1e-4, atol=1e-4)


def test_no_two_modules_of_sd15_share_a_key() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    names = [n for n, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len({module_key(name) for name in names}) == len(names) == 282
