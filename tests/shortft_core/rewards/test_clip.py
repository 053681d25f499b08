"""PickScore and CLIPScore, and the CLIP folders they load."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from shortft_core import rewards
from shortft_core.clip_embedder import TransformersClip, load_clip
from shortft_core.errors import MissingWeightsError, WeightsError
from shortft_core.rewards import Composite
from shortft_core.spec import Source
from shortft_core.spec import rewards as spec

CPU = torch.device("cpu")
PROMPTS = ("a large red circle", "two blue stars, side by side", "")


def pickscore(folder: Path, **settings: Any) -> Composite:
    term = spec.PickScore(source=Source(path=str(folder)), **settings)
    return rewards.build([term], device=CPU, dtype=torch.float32)


def load(folder: Path) -> TransformersClip:
    return load_clip(folder, device=CPU, dtype=torch.float32, field="reward")


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(clip_folder, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def reconfigure(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def reference(folder: Path, images: Tensor) -> list[float]:
    """The official way: PIL, the processor, the model's own logits over its own scale."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    pictures = [
        Image.fromarray(np.asarray((x * 255).round().byte().permute(1, 2, 0))) for x in images
    ]
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    texts = tokenizer(list(PROMPTS), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=pixels, **texts)
        cosines: Tensor = output.logits_per_image.diag() / model.logit_scale.exp()
    return list(cosines.tolist())


@pytest.mark.parametrize("name", ["pickscore", "clipscore"])
def test_exact_score_is_the_official_cosine(
    clip_folder: Path, pictures: Callable[..., Tensor], name: str
) -> None:
    kind = {"pickscore": spec.PickScore, "clipscore": spec.ClipScore}[name]
    term = kind(source=Source(path=str(clip_folder)))
    reward = rewards.build([term], device=CPU, dtype=torch.float32)  # type: ignore[list-item]
    images = (pictures(3, 80, 60) * 255).round() / 255
    scores = reward.score(images, PROMPTS, exact=True)
    assert scores.tolist() == pytest.approx(reference(clip_folder, images), abs=2e-4)
    assert reward.parts[0][0].name == name


def test_exact_preprocessing_can_be_trained_with(
    clip_folder: Path, pictures: Callable[..., Tensor]
) -> None:
    images = pictures(3, 80, 60)
    always = pickscore(clip_folder, exact_preprocessing=True).score(images, PROMPTS)
    reward = pickscore(clip_folder)
    assert torch.equal(always, reward.score(images, PROMPTS, exact=True))
    assert not torch.equal(always, reward.score(images, PROMPTS))


def test_tokens_are_those_of_open_clip(clip_folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    prompts = ["a photo of a cat", "Two STARS, don't they?   42 é"]
    ids = tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    theirs = open_clip.tokenize(prompts)
    ends = (theirs == 49407).int().argmax(dim=1)
    for mine, their, end in zip(ids, theirs, ends, strict=True):
        assert torch.equal(mine[: end + 1], their[: end + 1])


def test_a_prompt_is_embedded_once_and_without_gradient(clip_folder: Path) -> None:
    clip = load(clip_folder)
    calls: list[int] = []
    handle = clip.model.text_model.register_forward_hook(lambda *_: calls.append(1))
    first = clip.embed_texts(["once", "once", "twice"])
    again = clip.embed_texts(["twice", "once"])
    handle.remove()
    assert len(calls) == 1
    assert torch.equal(first[[2, 0]], again)
    assert not first.requires_grad
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(3))


def test_prompts_seen_in_inference_mode_can_be_trained_with(
    clip_folder: Path, pictures: Callable[..., Tensor]
) -> None:
    reward = pickscore(clip_folder)
    images = pictures(1, 32, 32)
    with torch.inference_mode():
        scored = reward.score(images, ["a prompt of the evaluation"])
    images.requires_grad_()
    trained = reward.score(images, ["a prompt of the evaluation"])
    trained.sum().backward()
    assert trained.tolist() == pytest.approx(scored.tolist(), abs=1e-6)


def test_long_prompts_are_cut_with_one_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reconfigure(folder, lambda config: config["text_config"].update(max_position_embeddings=8))
    table = "text_model.embeddings.position_embedding.weight"
    rewrite(folder, lambda tensors: tensors.update({table: tensors[table][:8].clone()}))
    clip = load(folder)
    with caplog.at_level(logging.WARNING, logger="shortft_core"):
        clip.embed_texts(["one two three four five six"])
        assert not caplog.records
        features = clip.embed_texts(["one two three four five six seven"])
        clip.embed_texts(["one two three four five six eight nine ten"])
    assert [record.getMessage()[:27] for record in caplog.records] == [
        "prompts are cut to 8 tokens"
    ]
    torch.testing.assert_close(features, clip.embed_texts(["one two three four five six"]))


def test_living_rewards_share_one_copy_of_a_clip(clip_folder: Path) -> None:
    kept = load(clip_folder)
    assert load(clip_folder) is kept
    other = load_clip(clip_folder, device=CPU, dtype=torch.bfloat16, field="reward")
    assert other is not kept
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_nothing_of_the_model_is_trained(clip_folder: Path) -> None:
    clip = load(clip_folder)
    assert not clip.model.training
    assert not any(weight.requires_grad for weight in clip.model.parameters())


def test_bfloat16_body_scores_and_slopes_as_float32(
    clip_folder: Path, pictures: Callable[..., Tensor]
) -> None:
    term = spec.PickScore(source=Source(path=str(clip_folder)))
    scores, slopes = [], []
    for dtype in (torch.float32, torch.bfloat16):
        images = pictures(3, 64, 64).requires_grad_()
        reward = rewards.build([term], device=CPU, dtype=dtype)
        scores.append(reward.score(images, PROMPTS))
        slopes.append(torch.autograd.grad(scores[-1].sum(), images)[0].flatten())
    assert (scores[0] - scores[1]).abs().max() < 0.02
    assert torch.cosine_similarity(slopes[0], slopes[1], dim=0) > 0.99


def test_layout_of_2022_loads(folder: Path, pictures: Callable[..., Tensor]) -> None:
    """pytorch_model.bin with stored positions, `eos_token_id: 2`, null sub-configurations."""
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    torch.save(tensors, folder / "pytorch_model.bin")
    images = pictures(3, 64, 64)
    expected = pickscore(folder).score(images, PROMPTS)
    (folder / "model.safetensors").unlink()

    def age(config: dict[str, Any]) -> None:
        config.update(text_config_dict=None, vision_config_dict=None)
        config["text_config"].update(eos_token_id=2)

    reconfigure(folder, age)
    scores = pickscore(folder).score(images, PROMPTS)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


def test_a_half_precision_file_is_computed_in_the_precision_asked_for(folder: Path) -> None:
    def halve(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})

    rewrite(folder, halve)
    assert {weight.dtype for weight in load(folder).model.parameters()} == {torch.float32}


HEAD = "visual_projection.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop(HEAD), f"1 missing: {HEAD}"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (
            lambda tensors: tensors.update({HEAD: torch.zeros(3, 32)}),
            rf"1 misshapen: {HEAD} \(3, 32\) instead of \(24, 32\)",
        ),
        (
            lambda tensors: tensors.update({HEAD: torch.full((24, 32), torch.nan)}),
            f"NaN or infinite values in {HEAD}",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], None], told: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(WeightsError, match=told) as caught:
        pickscore(folder)
    assert caught.value.field == "rewards.0.source"


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has neither model.safetensors nor pytorch_model.bin"),
        ("vocab.json", "has neither tokenizer.json nor vocab.json and merges.txt"),
    ],
)
def test_a_missing_file_is_named(folder: Path, gone: str, told: str) -> None:
    (folder / gone).unlink()
    with pytest.raises(MissingWeightsError, match=told):
        pickscore(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: config.update(model_type="bert"), "is a bert model"),
        (
            lambda config: config["text_config"].update(eos_token_id=7),
            "ends prompts with token 49407, but config.json reads the embedding at 7",
        ),
        (lambda config: config["text_config"].update(hidden_act="gello"), "gello"),
        (lambda config: config["text_config"].update(num_attention_heads=5), "multiple"),
        (lambda config: config["text_config"].update(hidden_size="wide"), "hidden_size"),
    ],
)
def test_a_wrong_configuration_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    reconfigure(folder, change)
    with pytest.raises(WeightsError, match=told):
        pickscore(folder)


def test_more_tokens_than_embeddings_are_refused(folder: Path) -> None:
    reconfigure(folder, lambda config: config["text_config"].update(vocab_size=500))
    table = "text_model.embeddings.token_embedding.weight"
    rewrite(folder, lambda tensors: tensors.update({table: tensors[table][:500].clone()}))
    with pytest.raises(WeightsError, match="has 49408 tokens for 500 embeddings"):
        pickscore(folder)


def test_the_official_weights_are_asked_for_by_name_when_offline() -> None:
    with pytest.raises(MissingWeightsError, match="yuvalkirstain/PickScore_v1") as caught:
        rewards.build([spec.PickScore()], device=CPU, dtype=torch.float32)
    assert caught.value.field == "rewards.0.source"
    assert "shortft models fetch" in caught.value.remedy
