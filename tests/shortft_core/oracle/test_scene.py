"""The caption grammar: every scene has one caption, and the caption says all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core.oracle.scene import (
    COLOR_NAMES,
    HELD_OUT_PAIRS,
    KINDS,
    RELATIONS,
    SIZE_NAMES,
    Scene,
    Shape,
    parse,
)

shapes = st.builds(
    Shape,
    kind=st.sampled_from(KINDS),
    color=st.sampled_from(COLOR_NAMES),
    size=st.none() | st.sampled_from(SIZE_NAMES),
)
backgrounds = st.none() | st.sampled_from(COLOR_NAMES)
scenes = st.builds(
    Scene, shapes=st.tuples(shapes), relation=st.none(), background=backgrounds
) | st.builds(
    Scene,
    shapes=st.tuples(shapes, shapes),
    relation=st.sampled_from(RELATIONS),
    background=backgrounds,
)


@given(scenes)
def test_caption_is_the_inverse_of_parse(scene: Scene) -> None:
    assert parse(scene.caption()) == scene
    assert parse(f"  {scene.caption().upper()} ") == scene


def test_a_caption_reads_as_english() -> None:
    scene = Scene((Shape("star", "orange"), Shape("ring", "blue", "small")), "left of", "white")
    assert scene.caption() == "an orange star left of a small blue ring on a white background"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a photo of a cat",
        "a circle",
        "a red circle left of",
        "a red circle on background",
        "a red circle on a teal background",
        "a red circle left of a blue star above a green ring",
        "a huge red circle",
        "two red circles",
    ],
)
def test_other_text_has_no_scene(text: str) -> None:
    assert parse(text) is None


def test_one_pair_in_eight_is_held_out_and_every_color_and_kind_has_one() -> None:
    assert len(HELD_OUT_PAIRS) * 8 == len(COLOR_NAMES) * len(KINDS)
    assert {color for color, _ in HELD_OUT_PAIRS} == set(COLOR_NAMES)
    assert {kind for _, kind in HELD_OUT_PAIRS} == set(KINDS)


@given(scenes)
def test_a_scene_is_held_out_if_any_of_its_shapes_is(scene: Scene) -> None:
    pairs = {(shape.color, shape.kind) for shape in scene.shapes}
    assert scene.is_held_out == bool(pairs & HELD_OUT_PAIRS)
