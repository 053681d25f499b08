"""False captions, false scenes and worse images: wrong in the one way that they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from shapes.data import batch, to_tensor
from shapes.degradations import add_noise, blur, cut_off, soften
from shapes.hard_negatives import (
    SWAPS,
    possible_swaps,
    stated,
    swap_one,
    wrong_captions,
    wrong_scenes,
)
from shapes.preferences import REASONS, preferences
from shapes.quality import MAX_NOISE, MAX_SIGMA, quality
from shapes.renderer import IMAGE_SIZE, captions, draw_scenes, render

CAPTION = "a large red circle left of a small green star on a white background"


@pytest.mark.parametrize("swap", SWAPS)
def test_exactly_the_named_attribute_is_wrong(swap: str) -> None:
    true = stated(CAPTION)
    made, wrong = swap_one(true, np.random.default_rng(1), swap)
    pairs = list(zip(true.shapes, wrong.shapes, strict=True))
    changed = {
        "shape": sum(a.kind != b.kind for a, b in pairs),
        "color": sum(a.color != b.color for a, b in pairs),
        "size": sum(a.size != b.size for a, b in pairs),
        "background": int(true.background != wrong.background),
        "relation": int(true.relation != wrong.relation),
    }
    expected = {"color": 2} if swap == "binding" else {swap: 1}
    assert made == swap
    assert {name: count for name, count in changed.items() if count} == expected


@given(st.integers(0, 2**32 - 1))
def test_no_false_caption_is_true_or_held_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = captions(rng, draw_scenes(rng, 16))
    wrong = wrong_captions(rng, true, 2)
    assert len(wrong) == 32
    assert not any(stated(text).is_held_out for text in wrong)
    assert all(wrong[i] != true[i // 2] for i in range(32))


def test_only_what_a_caption_states_can_be_swapped() -> None:
    assert possible_swaps(stated("a red circle")) == ["shape", "color"]
    assert set(possible_swaps(stated(CAPTION))) == set(SWAPS)


def test_a_false_scene_contradicts_the_caption_and_keeps_the_places() -> None:
    rng = np.random.default_rng(3)
    scenes = draw_scenes(rng, 256)
    texts = captions(rng, scenes)
    swaps, wrong = wrong_scenes(rng, scenes, texts)
    assert set(swaps) == set(SWAPS)
    assert not wrong.held_out.any()
    for row, (swap, text) in enumerate(zip(swaps, texts, strict=True)):
        moved = not np.array_equal(scenes.center[row], wrong.center[row])
        assert moved == (swap == "relation")
        if not moved:
            said = stated(text)
            shown = wrong.scene(row)
            true = scenes.scene(row)
            assert shown != true
            assert shown.relation == said.relation


def test_cutting_off_hides_half_of_the_first_shape() -> None:
    rng = np.random.default_rng(4)
    scenes = draw_scenes(rng, 64, two_shapes=0.0)
    cut = cut_off(scenes, rng)
    beyond = np.minimum(cut.center[:, 0], IMAGE_SIZE - cut.center[:, 0]).min(axis=1)
    assert (np.abs(beyond) <= 0.31 * scenes.radius[:, 0]).all()


def test_blur_and_noise_have_the_stated_strength() -> None:
    images = torch.zeros(2, 3, 33, 33)
    images[:, :, 16, 16] = 1.0
    blurred = blur(images, torch.tensor([0.0, 1.5]))
    torch.testing.assert_close(blurred[0], images[0])
    places = torch.arange(33.0) - 16
    variance = (blurred[1, 0].sum(0) * places.square()).sum()
    assert variance.item() == pytest.approx(1.5**2, rel=0.02)
    gray = torch.full((2, 3, 64, 64), 0.5)
    noisy = add_noise(gray, torch.tensor([0.0, 0.1]), np.random.default_rng(0))
    assert noisy[0].equal(gray[0])
    assert noisy[1].std().item() == pytest.approx(0.1, rel=0.03)


def test_softening_keeps_a_quarter_clean_and_is_seeded() -> None:
    _, images, _ = batch(5, 0, 32)
    soft = soften(images, np.random.default_rng(1))
    assert soft.shape == images.shape
    assert soft[:8].equal(images[:8])
    assert all((soft[i] - images[i]).abs().mean() > 1e-3 for i in range(8, 32))
    assert soft.equal(soften(images, np.random.default_rng(1)))


def test_pairs_name_their_reason_and_share_their_caption() -> None:
    data = preferences(6, 0, 32)
    assert data.reasons == list(REASONS) * 8
    assert len(data.captions) == 32
    detail = [images.diff(dim=-1).abs().mean((1, 2, 3)) for images in (data.better, data.worse)]
    reasons = np.array(data.reasons)
    assert (detail[1] > detail[0])[reasons == "noisy"].all()
    assert_array_equal(data.better, preferences(6, 0, 32).better)


def test_quality_falls_with_blur_and_noise_and_stays_in_its_range() -> None:
    rng = np.random.default_rng(7)
    scenes = draw_scenes(rng, 128)
    zero, ones = torch.zeros(128), torch.ones(128)
    best = quality(scenes, zero, zero)
    worst = quality(scenes, MAX_SIGMA * ones, MAX_NOISE * ones)
    torch.testing.assert_close(best - worst, 5.4 * ones)
    assert worst.min() >= 1.0
    assert best.max() <= 10.0
    assert to_tensor(render(scenes)).shape == (128, 3, IMAGE_SIZE, IMAGE_SIZE)
