from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from shortft_core import catalog, rewards
from shortft_core.errors import UnknownNameError, UserError
from shortft_core.rewards import Composite
from shortft_core.spec import AnyReward, Source
from shortft_core.spec import rewards as spec

CPU = torch.device("cpu")
PROMPTS = ("a red circle", "a blue star")
SHAPES = Source(name="shapes")


def build(*terms: AnyReward) -> Composite:
    return rewards.build(terms, device=CPU, dtype=torch.float32)


def test_score_is_the_weighted_sum_of_the_raw_terms(pictures: Callable[..., Tensor]) -> None:
    reward = build(spec.Brightness(weight=2.0), spec.Symmetry(weight=-0.5))
    images = pictures(2, 32, 32)
    terms = reward.terms(images, PROMPTS)
    assert list(terms) == ["brightness", "symmetry"]
    assert torch.equal(terms["brightness"], build(spec.Brightness()).score(images, PROMPTS))
    expected = 2.0 * terms["brightness"] - 0.5 * terms["symmetry"]
    torch.testing.assert_close(reward.score(images, PROMPTS), expected)


@pytest.mark.usefixtures("tiny_bundle")
def test_combined_is_ten_pickscore_two_hps_and_a_twentieth_aesthetic(
    pictures: Callable[..., Tensor],
) -> None:
    reward = build(spec.Combined(source=SHAPES, weight=3.0))
    images = pictures(2, 32, 32)
    terms = reward.terms(images, PROMPTS)
    for name, part in (
        ("pickscore", spec.PickScore(source=SHAPES)),
        ("hps_v2", spec.HPSv2(source=SHAPES)),
        ("aesthetic", spec.Aesthetic(source=SHAPES)),
    ):
        assert torch.equal(terms[name], build(part).score(images, PROMPTS))
    expected = 10 * terms["pickscore"] + 2 * terms["hps_v2"] + 0.05 * terms["aesthetic"]
    torch.testing.assert_close(terms["combined"], expected)
    torch.testing.assert_close(reward.score(images, PROMPTS), 3 * expected)


@pytest.mark.usefixtures("tiny_bundle")
def test_a_term_beside_its_preset_adds_its_weight() -> None:
    reward = build(
        spec.Combined(source=SHAPES), spec.PickScore(source=SHAPES, weight=5.0), spec.Symmetry()
    )
    weights = {part.name: weight for part, weight in reward.parts}
    assert weights == {"pickscore": 15.0, "hps_v2": 2.0, "aesthetic": 0.05, "symmetry": 1.0}


@pytest.mark.usefixtures("tiny_bundle")
def test_resolved_terms_of_a_preset_merge() -> None:
    terms = (spec.Combined(source=SHAPES), spec.Aesthetic(weight=0.5))
    resolved = [catalog.resolve_reward(term, Source(name="shapes"), "rewards") for term in terms]
    weights = {part.name: weight for part, weight in build(*resolved).parts}
    assert weights["aesthetic"] == pytest.approx(0.55)


@pytest.mark.usefixtures("tiny_bundle")
def test_a_term_beside_its_preset_with_other_settings_is_refused(clip_folder: Path) -> None:
    other = spec.PickScore(source=Source(path=str(clip_folder)))
    with pytest.raises(UserError, match=r"^rewards\.1: pickscore is already part of rewards\.0"):
        build(spec.Combined(source=SHAPES), other)


def test_combined_takes_its_weights_by_name_only() -> None:
    with pytest.raises(ValidationError, match="cannot hold several rewards"):
        spec.Combined(source=Source(path="somewhere"))


def test_an_unknown_source_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        build(spec.Brightness(), spec.PickScore(source=Source(name="shape")))
    assert caught.value.field == "rewards.1.source.name"
    assert "shapes" in caught.value.remedy


def test_half_precision_is_never_used_for_a_reward_body(clip_folder: Path) -> None:
    term = spec.PickScore(source=Source(path=str(clip_folder)))
    whole = rewards.build([term], device=CPU, dtype=torch.float16)
    same = build(term)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole.score(images, PROMPTS), same.score(images, PROMPTS))


def test_images_and_prompts_have_to_match(pictures: Callable[..., Tensor]) -> None:
    reward = build(spec.Brightness())
    with pytest.raises(ValueError, match=r"not \[1, 3, H, W\]"):
        reward.score(pictures(2, 8, 8), PROMPTS[:1])
    with pytest.raises(ValueError, match=r"not \[2, 3, H, W\]"):
        reward.score(pictures(2, 8, 8)[:, :1], PROMPTS)
