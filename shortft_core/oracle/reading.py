"""What a picture of `shapes` shows, compared with what its caption asks for (no torch)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from shortft_core.oracle.scene import Scene, Shape

ATTRIBUTES: Final = ("shape", "color", "size", "relation", "background")


@dataclass(frozen=True, slots=True)
class SeenShape:
    """One shape that was found in a picture."""

    kind: str
    color: str
    size: str
    x: float
    """Pixels from the left edge to the center."""
    y: float
    """Pixels from the top edge to the center."""
    confidence: float
    """Probability in [0, 1] that there is a shape at all."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The shapes of one picture, the surest first, and the color behind them."""

    shapes: tuple[SeenShape, ...]
    background: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """How often each attribute was asked for, and how often the picture shows it."""

    asked: Counter[str]
    shown: Counter[str]

    @property
    def share(self) -> float:
        """Share of the asked attributes that is shown, in [0, 1]."""
        return self.shown.total() / self.asked.total()

    def rate(self, attribute: str) -> float | None:
        """Share shown of one of ATTRIBUTES; None if it was never asked for."""
        asked = self.asked[attribute]
        return self.shown[attribute] / asked if asked else None


def relation_between(first: SeenShape, second: SeenShape) -> str:
    """Where the first shape is, seen from the second, along the longer of the two distances."""
    across, down = second.x - first.x, second.y - first.y
    if abs(across) >= abs(down):
        return "left of" if across > 0 else "right of"
    return "above" if down > 0 else "below"


def compare(reading: Reading, scene: Scene) -> Comparison:
    """Matches the surest shapes to those of the caption in the way that agrees best.

    A missing shape shows none of its attributes. A relation counts only between two shapes
    that each have the right kind or the right color: anything else is another pair's relation.
    """
    found = reading.shapes[: len(scene.shapes)]
    seen = (*found, *[None] * (len(scene.shapes) - len(found)))
    shown = max((_shown(order, scene) for order in permutations(seen)), key=Counter.total)
    shown["background"] = int(reading.background == scene.background)
    return Comparison(_asked(scene), shown)


def total(comparisons: Iterable[Comparison]) -> Comparison:
    """The sum over many pictures."""
    asked: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for comparison in comparisons:
        asked.update(comparison.asked)
        shown.update(comparison.shown)
    return Comparison(asked, shown)


def _asked(scene: Scene) -> Counter[str]:
    return Counter(
        shape=len(scene.shapes),
        color=len(scene.shapes),
        size=sum(shape.size is not None for shape in scene.shapes),
        relation=int(scene.relation is not None),
        background=int(scene.background is not None),
    )


def _shown(seen: tuple[SeenShape | None, ...], scene: Scene) -> Counter[str]:
    shown: Counter[str] = Counter()
    for found, shape in zip(seen, scene.shapes, strict=True):
        shown.update(_shared(found, shape))
    shown["relation"] = int(_relation_holds(seen, scene))
    return shown


def _shared(found: SeenShape | None, shape: Shape) -> dict[str, int]:
    if found is None:
        return {}
    return {
        "shape": int(found.kind == shape.kind),
        "color": int(found.color == shape.color),
        "size": int(found.size == shape.size),
    }


def _relation_holds(seen: tuple[SeenShape | None, ...], scene: Scene) -> bool:
    if scene.relation is None:
        return False
    first, second = seen
    if first is None or second is None:
        return False
    named = all(
        found.kind == shape.kind or found.color == shape.color
        for found, shape in zip((first, second), scene.shapes, strict=True)
    )
    return named and relation_between(first, second) == scene.relation
