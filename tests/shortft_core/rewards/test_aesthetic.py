from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shortft_core import rewards
from shortft_core.clip_embedder import load_clip
from shortft_core.errors import MissingWeightsError, UnknownNameError, WeightsError
from shortft_core.preprocessing import shortest_edge_crop
from shortft_core.rewards import Composite
from shortft_core.rewards.aesthetic import AestheticHead
from shortft_core.spec import Source
from shortft_core.spec import rewards as spec
from shortft_core.weights import load_strict, read_tensors

CPU = torch.device("cpu")
LINEARS = (0, 2, 4, 6, 7)


def aesthetic(head: Path, clip: Path, **settings: Any) -> Composite:
    term = spec.Aesthetic(source=Source(path=str(head)), clip=Source(path=str(clip)), **settings)
    return rewards.build([term], device=CPU, dtype=torch.float32)


def collapse(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The five layers as one affine map, in float64."""
    first = tensors["layers.0.weight"]
    matrix = torch.eye(first.shape[1], dtype=torch.float64)
    offset = torch.zeros(first.shape[1], dtype=torch.float64)
    for layer in LINEARS:
        weight = tensors[f"layers.{layer}.weight"].double()
        matrix = weight @ matrix
        offset = weight @ offset + tensors[f"layers.{layer}.bias"].double()
    return matrix.squeeze(0), offset.squeeze(0)


def test_score_is_an_affine_map_of_the_unit_embedding(
    aesthetic_head: Path, clip_folder: Path, pictures: Callable[..., Tensor]
) -> None:
    images = pictures(3, 64, 48)
    clip = load_clip(clip_folder, device=CPU, dtype=torch.float32, field="clip")
    embeddings = clip.embed_images(shortest_edge_crop(images, 28)).double()
    matrix, offset = collapse(read_tensors(aesthetic_head, field="head"))
    scores = aesthetic(aesthetic_head, clip_folder).score(images, [""] * 3)
    torch.testing.assert_close(scores.double(), embeddings @ matrix + offset, rtol=1e-5, atol=1e-4)


def test_training_mode_brings_no_dropout_back(aesthetic_head: Path) -> None:
    head = AestheticHead((24, 20, 12, 8, 4, 1))
    load_strict(head, read_tensors(aesthetic_head, field="head"), field="head", path=aesthetic_head)
    embeddings = torch.randn(4, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head.train()(embeddings), head.eval()(embeddings))


def test_official_widths_have_the_official_keys() -> None:
    shapes = {
        n: tuple(t.shape)
        for n, t in AestheticHead((768, 1024, 128, 64, 16, 1)).state_dict().items()
    }
    assert shapes == {
        "layers.0.weight": (1024, 768),
        "layers.0.bias": (1024,),
        "layers.2.weight": (128, 1024),
        "layers.2.bias": (128,),
        "layers.4.weight": (64, 128),
        "layers.4.bias": (64,),
        "layers.6.weight": (16, 64),
        "layers.6.bias": (16,),
        "layers.7.weight": (1, 16),
        "layers.7.bias": (1,),
    }


def test_target_rewards_closeness(
    aesthetic_head: Path, clip_folder: Path, pictures: Callable[..., Tensor]
) -> None:
    images = pictures(3, 64, 64)
    plain = aesthetic(aesthetic_head, clip_folder).score(images, [""] * 3)
    aimed = aesthetic(aesthetic_head, clip_folder, target=5.5).score(images, [""] * 3)
    torch.testing.assert_close(aimed, -(plain - 5.5).abs())


def test_the_prompt_is_ignored(
    aesthetic_head: Path, clip_folder: Path, pictures: Callable[..., Tensor]
) -> None:
    reward, images = aesthetic(aesthetic_head, clip_folder), pictures(1, 64, 64)
    assert torch.equal(reward.score(images, ["a star"]), reward.score(images, ["a ring"]))


@pytest.mark.usefixtures("tiny_bundle")
def test_a_named_source_brings_its_own_clip(
    aesthetic_head: Path, clip_folder: Path, pictures: Callable[..., Tensor]
) -> None:
    images = pictures(2, 64, 64)
    named = rewards.build(
        [spec.Aesthetic(source=Source(name="shapes"))], device=CPU, dtype=torch.float32
    )
    same = aesthetic(aesthetic_head, clip_folder)
    assert torch.equal(named.score(images, ["", ""]), same.score(images, ["", ""]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("layers.6.bias"), r"1 missing: layers\.6\.bias"),
        (lambda t: t.pop("layers.2.weight"), r"1 missing: layers\.2\.weight"),
        (lambda t: t.update({"layers.9.bias": torch.zeros(1)}), r"1 unexpected: layers\.9\.bias"),
        (
            lambda t: t.update({"layers.0.weight": torch.zeros(20, 768)}),
            r"layers\.0\.weight \(20, 768\) instead of \(20, 24\)",
        ),
        (
            lambda t: t.update({"layers.7.weight": torch.zeros(2, 4)}),
            r"layers\.7\.weight \(2, 4\) instead of \(1, 4\)",
        ),
        (
            lambda t: t["layers.4.bias"].fill_(torch.nan),
            r"NaN or infinite values in layers\.4\.bias",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    aesthetic_head: Path,
    clip_folder: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], Any],
    told: str,
) -> None:
    tensors = read_tensors(aesthetic_head, field="head")
    change(tensors)
    torch.save(tensors, tmp_path / "head.pth")
    with pytest.raises(WeightsError, match=told) as caught:
        aesthetic(tmp_path / "head.pth", clip_folder)
    assert caught.value.field == "rewards.0.source"


def test_the_sibling_with_relu_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    """ava+logos-reluMSE has its Linears elsewhere, and non-linearities between them."""
    tensors = {
        f"layers.{i}.{k}": torch.zeros(1) for i in (0, 3, 6, 9, 11) for k in ("weight", "bias")
    }
    torch.save(tensors, tmp_path / "head.pth")
    with pytest.raises(WeightsError, match=r"6 missing: .*; 6 unexpected: "):
        aesthetic(tmp_path / "head.pth", clip_folder)


def test_what_is_missing_offline_is_named(aesthetic_head: Path, clip_folder: Path) -> None:
    clip, head = Source(path=str(clip_folder)), Source(path=str(aesthetic_head))
    with pytest.raises(MissingWeightsError, match="linearMSE") as caught:
        rewards.build([spec.Aesthetic(clip=clip)], device=CPU, dtype=torch.float32)
    assert caught.value.field == "rewards.0.source"
    with pytest.raises(MissingWeightsError, match="openai/clip-vit-large-patch14") as caught:
        rewards.build([spec.Aesthetic(source=head)], device=CPU, dtype=torch.float32)
    assert caught.value.field == "rewards.0.clip"
    with pytest.raises(UnknownNameError) as unknown:
        rewards.build(
            [spec.Aesthetic(source=Source(name="laion"))], device=CPU, dtype=torch.float32
        )
    assert unknown.value.known == ("official", "shapes")
