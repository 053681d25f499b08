from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from shortft_core import rewards
from shortft_core.errors import MissingWeightsError, WeightsError
from shortft_core.preprocessing import letterbox
from shortft_core.rewards import Composite
from shortft_core.rewards.hps import OpenClip, load_open_clip, to_transformers_layout
from shortft_core.spec import Source
from shortft_core.spec import rewards as spec
from shortft_core.weights import read_tensors

CPU = torch.device("cpu")
PROMPTS = ("a large red circle", "two blue stars, side by side", "a ring")


def hps(path: Path, **settings: Any) -> Composite:
    term = spec.HPSv2(source=Source(path=str(path)), **settings)
    return rewards.build([term], device=CPU, dtype=torch.float32)


@pytest.fixture
def folder(hps_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(hps_checkpoint.parent, tmp_path / "copy"))


@pytest.fixture
def tensors(hps_checkpoint: Path) -> dict[str, Tensor]:
    return read_tensors(hps_checkpoint, field="reward")


def test_score_is_the_cosine_of_open_clip(
    hps_checkpoint: Path, pictures: Callable[..., Tensor]
) -> None:
    """As the official script computes it, with open_clip's own loader and tokenizer."""
    config = json.loads(hps_checkpoint.with_name("open_clip_config.json").read_text())
    model = open_clip.CLIP(**config["model_cfg"]).eval()
    open_clip.load_checkpoint(model, str(hps_checkpoint))
    images = pictures(3, 64, 48)
    with torch.no_grad():
        image_features = model.encode_image(letterbox(images, 28), normalize=True)
        text_features = model.encode_text(open_clip.tokenize(list(PROMPTS)), normalize=True)
        expected = (image_features @ text_features.T).diag()
    torch.testing.assert_close(hps(hps_checkpoint).score(images, PROMPTS), expected)


def test_a_folder_and_its_checkpoint_are_the_same_source(
    hps_checkpoint: Path, pictures: Callable[..., Tensor]
) -> None:
    images = pictures(3, 32, 32)
    one, other = (
        hps(path).score(images, PROMPTS) for path in (hps_checkpoint, hps_checkpoint.parent)
    )
    assert torch.equal(one, other)


def test_antialias_is_a_choice(hps_checkpoint: Path, pictures: Callable[..., Tensor]) -> None:
    images = pictures(3, 96, 96)
    scores = [hps(hps_checkpoint, antialias=on).score(images, PROMPTS) for on in (True, False)]
    assert (scores[0] - scores[1]).abs().min() > 1e-4


def test_both_versions_go_by_their_own_names(hps_checkpoint: Path) -> None:
    source = Source(path=str(hps_checkpoint))
    reward = rewards.build(
        [spec.HPSv2(source=source), spec.HPSv21(source=source)], device=CPU, dtype=torch.float32
    )
    assert [part.name for part, _ in reward.parts] == ["hps_v2", "hps_v2_1"]


def write_transformers_folder(folder: Path, clip_folder: Path, tensors: dict[str, Tensor]) -> None:
    shutil.copytree(clip_folder, folder)
    save_file(to_transformers_layout(tensors), folder / "model.safetensors")


def test_converted_layout_scores_equal_to_open_clip(
    hps_checkpoint: Path,
    clip_folder: Path,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    pictures: Callable[..., Tensor],
) -> None:
    write_transformers_folder(tmp_path / "converted", clip_folder, tensors)
    images = pictures(3, 64, 48)
    expected = hps(hps_checkpoint).score(images, PROMPTS)
    converted = hps(tmp_path / "converted").score(images, PROMPTS)
    torch.testing.assert_close(converted, expected, rtol=0, atol=1e-6)


def test_conversion_covers_every_key_of_the_official_architecture() -> None:
    with torch.device("meta"):
        ours = open_clip.CLIP(**open_clip.get_model_config("ViT-H-14")).state_dict()
        vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
        text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
        config = CLIPConfig(
            projection_dim=1024,
            vision_config={**vision, "num_attention_heads": 16, "patch_size": 14},
            text_config={**text, "num_attention_heads": 16},
        )
        theirs = CLIPModel(config).state_dict()
    assert len(ours) == 686
    converted = {name: tensor.shape for name, tensor in to_transformers_layout(ours).items()}
    assert converted == {name: tensor.shape for name, tensor in theirs.items()}


@pytest.mark.parametrize("spoilt", ["visual.proj", "transformer.resblocks.1.ln_1.weight"])
def test_a_mutated_key_is_not_converted(tensors: dict[str, Tensor], spoilt: str) -> None:
    tensors["other." + spoilt] = tensors.pop(spoilt)
    with pytest.raises(KeyError, match=r"other\."):
        to_transformers_layout(tensors)


def test_wrapped_and_safetensors_checkpoints_load(
    folder: Path, tensors: dict[str, Tensor], pictures: Callable[..., Tensor]
) -> None:
    images = pictures(3, 32, 32)
    expected = hps(folder).score(images, PROMPTS)
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": wrapped}, folder / "HPS_v2_compressed.pt")
    assert torch.equal(hps(folder).score(images, PROMPTS), expected)
    (folder / "HPS_v2_compressed.pt").unlink()
    save_file(tensors, folder / "model.safetensors")
    assert torch.equal(hps(folder).score(images, PROMPTS), expected)


def test_half_precision_weights_become_float32(hps_checkpoint: Path) -> None:
    model = load_open_clip(hps_checkpoint, field="reward")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("visual.proj"), r"1 missing: visual\.proj"),
        (lambda t: t.update({"a.b": torch.zeros(1)}), r"1 unexpected: a\.b"),
        (lambda t: t["visual.proj"].fill_(torch.inf), r"NaN or infinite values in visual\.proj"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    folder: Path, tensors: dict[str, Tensor], change: Callable[[dict[str, Tensor]], Any], told: str
) -> None:
    change(tensors)
    torch.save({"state_dict": tensors}, folder / "HPS_v2_compressed.pt")
    with pytest.raises(WeightsError, match=told) as caught:
        hps(folder)
    assert caught.value.field == "rewards.0.source"


def test_a_pickled_model_is_refused(folder: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), folder / "HPS_v2_compressed.pt")
    with pytest.raises(WeightsError, match="pickled objects, which could run code"):
        hps(folder)


def test_without_a_configuration_it_is_held_to_vit_h_14(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(WeightsError, match=r"instead of \(77, 1024\)"):
        hps(folder)


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "{}",
        '{"model_cfg": {}}',
        '{"model_cfg": {"embed_dim": 8, "vision_cfg": 3, "text_cfg": {}}}',
        '{"model_cfg": {"embed_dim": 8, "vision_cfg": {"depth": 3}, "text_cfg": {}}}',
        '{"model_cfg": {"embed_dim": 8, "vision_cfg": {"width": 5}, "text_cfg": {}}}',
    ],
)
def test_a_wrong_configuration_is_refused(folder: Path, config: str) -> None:
    (folder / "open_clip_config.json").write_text(config, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"open_clip_config\.json is not an open_clip config"):
        hps(folder)


def test_two_checkpoints_in_a_folder_are_ambiguous(folder: Path) -> None:
    shutil.copy(folder / "HPS_v2_compressed.pt", folder / "HPS_v2.1_compressed.pt")
    with pytest.raises(
        WeightsError, match=r"found HPS_v2\.1_compressed\.pt, HPS_v2_compressed\.pt"
    ):
        hps(folder)


def test_long_prompts_are_cut_with_one_warning(
    hps_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = OpenClip(load_open_clip(hps_checkpoint, field="reward"), device=CPU, dtype=torch.float32)
    with caplog.at_level(logging.WARNING, logger="shortft_core"):
        fits = clip.embed_texts(["star " * 75])
        assert not caplog.records
        cut = clip.embed_texts(["star " * 76, "star " * 90])
        clip.embed_texts(["circle " * 76])
    assert [record.getMessage()[:28] for record in caplog.records] == [
        "prompts are cut to 77 tokens"
    ]
    torch.testing.assert_close(cut, fits.expand(2, -1))


@pytest.mark.parametrize(
    ("term", "file"),
    [(spec.HPSv2(), "HPS_v2_compressed.pt"), (spec.HPSv21(), "HPS_v2.1_compressed.pt")],
)
def test_the_official_checkpoint_is_named_when_offline(
    term: spec.HPSv2 | spec.HPSv21, file: str
) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        rewards.build([term], device=CPU, dtype=torch.float32)
    assert caught.value.problem.startswith(f"{file} of xswu/HPSv2 is not available")
    assert caught.value.field == "rewards.0.source"
