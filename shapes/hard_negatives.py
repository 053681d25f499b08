"""Captions and scenes with exactly one stated attribute wrong; never a held-out pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from shapes.renderer import IMAGE_SIZE, PALETTE, RADII, SceneBatch
from shortft_core.oracle.scene import (
    COLOR_NAMES,
    KINDS,
    RELATIONS,
    SIZE_NAMES,
    Scene,
    parse,
)

SWAPS: Final = ("shape", "color", "size", "background", "relation", "binding")
"""What can be wrong; `binding` exchanges the colors of the two shapes."""
WEIGHTS: Final = {"relation": 4.0, "binding": 3.0, "shape": 2.0}
"""How often a swap is chosen, 1 where not stated: what is hard to see needs more examples."""
_ATTEMPTS: Final = 50


def stated(caption: str) -> Scene:
    """The scene of a caption that this world's own renderer wrote."""
    scene = parse(caption)
    if scene is None:
        raise ValueError(f"outside the grammar: {caption!r}")
    return scene


def possible_swaps(scene: Scene) -> list[str]:
    """The members of SWAPS that make this scene's caption false."""
    swaps = ["shape", "color"]
    swaps += ["size"] * any(shape.size for shape in scene.shapes)
    swaps += ["background"] * (scene.background is not None)
    swaps += ["relation", "binding"] * (scene.relation is not None)
    return swaps


def swap_one(scene: Scene, rng: np.random.Generator, swap: str | None = None) -> tuple[str, Scene]:
    """Which attribute was made wrong, and the scene that has it wrong.

    It has a held-out pair only if the true scene has one already, which training never shows.
    """
    for _ in range(_ATTEMPTS):
        chosen = swap or _choose(possible_swaps(scene), rng)
        wrong = _swapped(scene, chosen, rng)
        if scene.is_held_out or not wrong.is_held_out:
            return chosen, wrong
    # An exchanged pair of a binding may be held out; there is always another kind to take.
    return swap_one(scene, rng, "shape")


def _choose(swaps: Sequence[str], rng: np.random.Generator) -> str:
    weights = np.array([WEIGHTS.get(swap, 1.0) for swap in swaps])
    return str(rng.choice(swaps, p=weights / weights.sum()))


def _swapped(scene: Scene, swap: str, rng: np.random.Generator) -> Scene:
    if swap == "background":
        return replace(scene, background=_other_color(rng, scene))
    if swap == "relation":
        return replace(scene, relation=_other(rng, RELATIONS, scene.relation))
    shapes = list(scene.shapes)
    if swap == "binding":
        first, second = shapes
        shapes = [replace(first, color=second.color), replace(second, color=first.color)]
        return replace(scene, shapes=tuple(shapes))
    places = [i for i, shape in enumerate(shapes) if swap != "size" or shape.size]
    place = int(rng.choice(places))
    if swap == "color":
        shapes[place] = replace(shapes[place], color=_other_color(rng, scene))
    elif swap == "size":
        shapes[place] = replace(shapes[place], size=_other(rng, SIZE_NAMES, shapes[place].size))
    else:
        shapes[place] = replace(shapes[place], kind=_other(rng, KINDS, shapes[place].kind))
    return replace(scene, shapes=tuple(shapes))


def _other_color(rng: np.random.Generator, scene: Scene) -> str:
    """A color that the caption does not name: a shape is never as its background."""
    named = {shape.color for shape in scene.shapes} | {scene.background}
    return str(rng.choice([color for color in COLOR_NAMES if color not in named]))


def _other(rng: np.random.Generator, names: Sequence[str], name: str | None) -> str:
    return str(rng.choice([other for other in names if other != name]))


def wrong_captions(rng: np.random.Generator, captions: Sequence[str], each: int) -> list[str]:
    """`each` false captions per true one; those of caption i are at i * each and after."""
    scenes = [stated(caption) for caption in captions]
    return [swap_one(scene, rng)[1].caption() for scene in scenes for _ in range(each)]


def wrong_scenes(
    rng: np.random.Generator, scenes: SceneBatch, captions: Sequence[str]
) -> tuple[list[str], SceneBatch]:
    """What is wrong in each, and scenes at the same places with one stated attribute wrong."""
    kind, color, size = scenes.kind.copy(), scenes.color.copy(), scenes.size.copy()
    background, center, radius = (
        scenes.background.copy(),
        scenes.center.copy(),
        scenes.radius.copy(),
    )
    rgb, swaps = scenes.rgb.copy(), []
    for row, caption in enumerate(captions):
        swap, wrong = swap_one(stated(caption), rng)
        swaps.append(swap)
        if swap == "relation":
            axis = scenes.relation[row] // 2
            center[row, :, axis] = IMAGE_SIZE - center[row, :, axis]
        for place, shape in enumerate(wrong.shapes):
            kind[row, place] = KINDS.index(shape.kind)
            if color[row, place] != COLOR_NAMES.index(shape.color):
                color[row, place] = COLOR_NAMES.index(shape.color)
                rgb[row, place + 1] = PALETTE[color[row, place]]
            if shape.size and size[row, place] != SIZE_NAMES.index(shape.size):
                size[row, place] = SIZE_NAMES.index(shape.size)
                radius[row, place] = RADII[size[row, place]]
        if wrong.background and background[row] != COLOR_NAMES.index(wrong.background):
            background[row] = COLOR_NAMES.index(wrong.background)
            rgb[row, 0] = PALETTE[background[row]]
    return swaps, replace(
        scenes,
        kind=kind,
        color=color,
        size=size,
        background=background,
        center=center,
        radius=radius,
        rgb=rgb,
    )
