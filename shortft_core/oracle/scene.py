"""Vocabulary, scenes and caption grammar of the bundled `shapes` world (no torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

KINDS: Final = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")
COLORS: Final = {
    "red": (214, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (246, 224, 60),
    "green": (46, 158, 68),
    "cyan": (70, 208, 220),
    "blue": (44, 78, 214),
    "purple": (128, 58, 178),
    "pink": (244, 150, 192),
    "brown": (122, 74, 40),
    "black": (24, 24, 24),
    "white": (244, 244, 244),
    "gray": (140, 140, 140),
}
COLOR_NAMES: Final = tuple(COLORS)
SIZE_RADII: Final = {"small": 8.0, "medium": 11.0, "large": 14.0}
"""Nominal radius of each size in pixels of the 64-pixel image."""
SIZE_NAMES: Final = tuple(SIZE_RADII)
RELATIONS: Final = ("left of", "right of", "above", "below")
HELD_OUT_PAIRS: Final = frozenset(
    (color, KINDS[(3 * index + 1) % len(KINDS)]) for index, color in enumerate(COLOR_NAMES)
)
"""One (color, kind) pair in eight, never drawn while anything is trained."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape of a scene; `size` is None where the caption leaves it open."""

    kind: str
    color: str
    size: str | None = None

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.color, self.kind) if word)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a caption says: one shape, or two with a relation, on an optional background."""

    shapes: tuple[Shape, ...]
    relation: str | None = None
    background: str | None = None

    @property
    def is_held_out(self) -> bool:
        """Whether any of its color-kind pairs was kept out of all training."""
        return any((shape.color, shape.kind) in HELD_OUT_PAIRS for shape in self.shapes)

    def caption(self) -> str:
        """The caption of the scene; `parse` is its inverse."""
        text = f" {self.relation} ".join(_with_article(str(shape)) for shape in self.shapes)
        return f"{text} on {_with_article(self.background)} background" if self.background else text


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


_SHAPE: Final = (
    rf"an? (?:(?P<size{{n}}>{'|'.join(SIZE_NAMES)}) )?"
    rf"(?P<color{{n}}>{'|'.join(COLOR_NAMES)}) (?P<kind{{n}}>{'|'.join(KINDS)})"
)
_CAPTION: Final = re.compile(
    _SHAPE.replace("{n}", "0")
    + rf"(?: (?P<relation>{'|'.join(RELATIONS)}) {_SHAPE.replace('{n}', '1')})?"
    + rf"(?: on an? (?P<background>{'|'.join(COLOR_NAMES)}) background)?"
)


def parse(caption: str) -> Scene | None:
    """The scene that a caption of this grammar describes, or None for any other text."""
    found = _CAPTION.fullmatch(" ".join(caption.lower().split()))
    if found is None:
        return None
    shapes = [Shape(found["kind0"], found["color0"], found["size0"])]
    if found["relation"]:
        shapes.append(Shape(found["kind1"], found["color1"], found["size1"]))
    return Scene(tuple(shapes), found["relation"], found["background"])
