"""The rendered world: seeded, inside the frame, true to its captions, held-out pairs kept out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from shapes.data import batch
from shapes.renderer import (
    COLOR_JITTER,
    IMAGE_SIZE,
    MARGIN,
    PALETTE,
    RADII,
    RADIUS_JITTER,
    SceneBatch,
    captions,
    draw_scenes,
    render,
)
from shortft_core.oracle.scene import HELD_OUT_PAIRS, KINDS, RELATIONS, parse

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, count: int, *, held_out: bool = False, two_shapes: float = 0.4) -> SceneBatch:
    rng = np.random.default_rng(seed)
    return draw_scenes(rng, count, held_out=held_out, two_shapes=two_shapes)


def test_the_same_seed_gives_the_same_scenes_images_and_captions() -> None:
    first, again, other = batch(7, 3, 32), batch(7, 3, 32), batch(7, 4, 32)
    for name in SceneBatch.__slots__:
        assert_array_equal(getattr(first[0], name), getattr(again[0], name))
    assert first[1].equal(again[1])
    assert first[2] == again[2]
    assert not first[1].equal(other[1])


def test_images_are_bytes_of_the_right_shape_and_tensors_lie_in_zero_to_one() -> None:
    pixels = render(draw(1, 16))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (16, IMAGE_SIZE, IMAGE_SIZE, 3)
    _, images, _ = batch(1, 0, 16)
    assert images.shape == (16, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert 0.0 <= images.min() < images.max() <= 1.0


@given(seeds)
def test_held_out_pairs_are_drawn_only_on_request(seed: int) -> None:
    for held_out in (False, True):
        scenes = draw(seed, 64, held_out=held_out)
        assert len(scenes) == 64
        assert [scenes.scene(i).is_held_out for i in range(64)] == [held_out] * 64
        assert scenes.held_out.tolist() == [held_out] * 64


def test_every_pair_that_is_not_held_out_is_drawn() -> None:
    scenes = draw(2, 4000)
    drawn = {(s.color, s.kind) for i in range(4000) for s in scenes.scene(i).shapes}
    assert len(drawn) == 84
    assert not drawn & HELD_OUT_PAIRS


@given(seeds)
def test_a_relation_is_true_of_the_centers_and_across_it_the_shapes_are_level(seed: int) -> None:
    scenes = draw(seed, 64, two_shapes=1.0)
    away = scenes.center[:, 1] - scenes.center[:, 0]
    for relation, (across, down) in zip(scenes.relation, away, strict=True):
        along = {"left of": across, "right of": -across, "above": down, "below": -down}
        assert along[RELATIONS[relation]] > abs(down if relation < 2 else across)


@given(seeds)
def test_shapes_stay_inside_the_frame_and_apart(seed: int) -> None:
    scenes = draw(seed, 64, two_shapes=1.0)
    reach = scenes.radius + MARGIN - 1e-3
    assert (scenes.center >= reach[..., None]).all()
    assert (scenes.center <= IMAGE_SIZE - reach[..., None]).all()
    apart = np.abs(scenes.center[:, 1] - scenes.center[:, 0]).max(axis=1)
    assert (apart >= scenes.radius.sum(axis=1) - 1e-3).all()


@given(seeds)
def test_sizes_and_colors_keep_to_their_names(seed: int) -> None:
    scenes = draw(seed, 64)
    assert np.abs(scenes.radius - RADII[scenes.size]).max() <= RADIUS_JITTER + 1e-5
    named = np.stack([scenes.background, *scenes.color.T], axis=1)
    assert np.abs(scenes.rgb - PALETTE[named]).max() <= COLOR_JITTER + 1e-3
    assert all(len(set(row)) == 3 for row in named.tolist())


@given(seeds)
def test_a_caption_says_only_what_is_true_of_its_scene(seed: int) -> None:
    scenes = draw(seed, 32)
    for index, caption in enumerate(captions(np.random.default_rng(seed), scenes)):
        said, truth = parse(caption), scenes.scene(index)
        assert said is not None
        assert said.relation == truth.relation
        assert said.background in {None, truth.background}
        for one, true in zip(said.shapes, truth.shapes, strict=True):
            assert (one.kind, one.color) == (true.kind, true.color)
            assert one.size in {None, true.size}


@pytest.mark.parametrize("kind", KINDS)
def test_the_drawn_colors_are_those_of_the_scene(kind: str) -> None:
    scenes = draw(5, 600, two_shapes=0.0)
    scenes = scenes.select(scenes.kind[:, 0] == KINDS.index(kind))
    pixels = render(scenes)
    rows = np.arange(len(scenes))
    column, row = scenes.center[:, 0].astype(int).T
    # A ring shows the background at its center.
    expected = scenes.rgb[:, 0 if kind == "ring" else 1]
    assert np.abs(pixels[rows, row, column] - expected).max() <= 0.5
    assert np.abs(pixels[:, 0, 0] - scenes.rgb[:, 0]).max() <= 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_larger_shapes_cover_more(kind: str) -> None:
    scenes = draw(6, 1200, two_shapes=0.0)
    scenes = scenes.select(scenes.kind[:, 0] == KINDS.index(kind))
    covered = (render(scenes) != np.rint(scenes.rgb[:, 0])[:, None, None]).any(-1).sum((1, 2))
    small, medium, large = (covered[scenes.size[:, 0] == size] for size in range(3))
    assert small.max() < medium.min() < medium.max() < large.min()


def test_outlines_are_anti_aliased() -> None:
    scenes = draw(8, 1, two_shapes=0.0)
    colors = {tuple(pixel) for pixel in render(scenes)[0].reshape(-1, 3).tolist()}
    assert len(colors) > 10
