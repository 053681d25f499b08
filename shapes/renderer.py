"""Draws scenes of the `shapes` world: seeded, anti-aliased, vectorised over the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shortft_core.oracle.scene import (
    COLOR_NAMES,
    COLORS,
    HELD_OUT_PAIRS,
    KINDS,
    RELATIONS,
    SIZE_NAMES,
    SIZE_RADII,
    Scene,
    Shape,
)

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

IMAGE_SIZE: Final = 64
MARGIN: Final = 2.0
RADIUS_JITTER: Final = 0.6
COLOR_JITTER: Final = 8.0
PALETTE: Final[Floats] = np.array(list(COLORS.values()), dtype=np.float32)
RADII: Final[Floats] = np.array(list(SIZE_RADII.values()), dtype=np.float32)
_HELD_OUT: Final = np.array([[(c, k) in HELD_OUT_PAIRS for k in KINDS] for c in COLOR_NAMES])


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - 1.0


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - 0.86


def _triangle(x: Floats, y: Floats) -> Floats:
    outline: Floats = np.maximum(0.866 * np.abs(x) - 0.5 * y - 0.5, y - 0.8)
    return outline


def _star(x: Floats, y: Floats) -> Floats:
    tip = np.mod(np.arctan2(x, -y) + np.pi / 5, 2 * np.pi / 5) - np.pi / 5
    radius = np.hypot(x, y)
    along, across = radius * np.cos(tip), np.abs(radius * np.sin(tip))
    # Edge from the tip (1.08, 0) to the notch at radius 0.46 and 36 degrees.
    notch = np.array([0.46 * np.cos(np.pi / 5), 0.46 * np.sin(np.pi / 5)])
    normal = np.array([notch[1], 1.08 - notch[0]]) / np.hypot(notch[1], 1.08 - notch[0])
    outline: Floats = (along - 1.08) * normal[0] + across * normal[1]
    return outline


def _heart(x: Floats, y: Floats) -> Floats:
    side, up = np.abs(x), -y
    lobe = np.hypot(side - 0.47, up - 0.38) - 0.52
    point = np.maximum(0.7071 * side - 0.7071 * (up + 0.98), np.maximum(up - 0.38, side - 0.99))
    inner = np.maximum(np.maximum(side - 0.47, up - 0.55), -up - 0.5)
    outline: Floats = np.minimum(np.minimum(lobe, point), inner)
    return outline


def _ring(x: Floats, y: Floats) -> Floats:
    outline: Floats = np.abs(np.hypot(x, y) - 0.78) - 0.22
    return outline


def _cross(x: Floats, y: Floats) -> Floats:
    long, short = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(long - 0.98, short - 0.3)


def _diamond(x: Floats, y: Floats) -> Floats:
    return (np.abs(x) / 0.68 + np.abs(y) / 1.05 - 1.0) * 0.57


DISTANCES: Final[Mapping[str, Callable[[Floats, Floats], Floats]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "cross": _cross,
    "diamond": _diamond,
}
"""Signed distance to each outline in units of the radius; x points right, y points down."""


@dataclass(frozen=True, slots=True)
class SceneBatch:
    """Exact description of `B` scenes; the second shape exists where `relation >= 0`."""

    kind: Ints  # [B, 2] index into KINDS
    color: Ints  # [B, 2] index into COLOR_NAMES
    size: Ints  # [B, 2] index into SIZE_NAMES
    radius: Floats  # [B, 2] pixels
    center: Floats  # [B, 2, 2] pixels, (x, y)
    relation: Ints  # [B] index into RELATIONS, -1 for a single shape
    background: Ints  # [B] index into COLOR_NAMES
    rgb: Floats  # [B, 3, 3] drawn colors of background, first and second shape, 0..255

    def __len__(self) -> int:
        return len(self.background)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which scenes show a color-kind pair that training never sees."""
        pairs = _HELD_OUT[self.color, self.kind]
        return pairs[:, 0] | (pairs[:, 1] & (self.relation >= 0))

    def select(self, chosen: NDArray[np.bool_] | Ints | slice) -> SceneBatch:
        """The scenes at the chosen places."""
        return SceneBatch(*(getattr(self, name)[chosen] for name in self.__slots__))

    def scene(self, index: int) -> Scene:
        """Everything that a caption could say of one scene."""
        count = 1 if self.relation[index] < 0 else 2
        shapes = tuple(
            Shape(
                KINDS[self.kind[index, i]],
                COLOR_NAMES[self.color[index, i]],
                SIZE_NAMES[self.size[index, i]],
            )
            for i in range(count)
        )
        relation = None if count == 1 else RELATIONS[self.relation[index]]
        return Scene(shapes, relation, COLOR_NAMES[self.background[index]])


def draw_scenes(
    rng: np.random.Generator, count: int, *, held_out: bool = False, two_shapes: float = 0.4
) -> SceneBatch:
    """`count` random scenes, all with a held-out pair or all without one.

    `two_shapes` is the share of scenes with a second shape and a relation.
    """
    kept: list[SceneBatch] = []
    while sum(map(len, kept)) < count:
        batch = _draw(rng, max(256, 2 * count), two_shapes)
        kept.append(batch.select(batch.held_out == held_out))
    fields = zip(*([getattr(b, name) for name in SceneBatch.__slots__] for b in kept), strict=True)
    return SceneBatch(*(np.concatenate(parts)[:count] for parts in fields))


def _draw(rng: np.random.Generator, count: int, two_shapes: float) -> SceneBatch:
    relation = np.where(rng.random(count) < two_shapes, rng.integers(0, len(RELATIONS), count), -1)
    size = rng.integers(0, len(SIZE_NAMES), (count, 2))
    jitter = rng.uniform(-RADIUS_JITTER, RADIUS_JITTER, (count, 2))
    radius = (RADII[size] + jitter).astype(np.float32)
    # Background, first and second color of a scene are three different ones.
    colors = rng.permuted(np.tile(np.arange(len(COLOR_NAMES)), (count, 1)), axis=1)[:, :3]
    noise = rng.uniform(-COLOR_JITTER, COLOR_JITTER, (count, 3, 3))
    return SceneBatch(
        kind=rng.integers(0, len(KINDS), (count, 2)),
        color=colors[:, 1:],
        size=size,
        radius=radius,
        center=_place(rng, radius, relation),
        relation=relation,
        background=colors[:, 0],
        rgb=np.clip(PALETTE[colors] + noise, 0, 255).astype(np.float32),
    )


def _place(rng: np.random.Generator, radius: Floats, relation: Ints) -> Floats:
    """Centers [B, 2, 2] inside the frame; related shapes never overlap along their axis."""
    low, high = radius + MARGIN, IMAGE_SIZE - radius - MARGIN
    free = rng.uniform(size=(*radius.shape, 2))
    center = low[..., None] + free * (high - low)[..., None]
    first_is_before = np.isin(relation, (0, 2))  # left of, above
    near = np.where(first_is_before, radius[:, 0], radius[:, 1])
    far = np.where(first_is_before, radius[:, 1], radius[:, 0])
    slack = IMAGE_SIZE - 2 * MARGIN - 2 * (near + far)
    cuts = np.sort(rng.uniform(size=(len(radius), 2)), axis=1) * slack[:, None]
    near_at = MARGIN + near + cuts[:, 0]
    far_at = MARGIN + 2 * near + far + cuts[:, 1]
    axis = np.where(relation >= 2, 1, 0)
    rows = np.flatnonzero(relation >= 0)
    center[rows, 0, axis[rows]] = np.where(first_is_before, near_at, far_at)[rows]
    center[rows, 1, axis[rows]] = np.where(first_is_before, far_at, near_at)[rows]
    # Across the relation's axis the two stay roughly level, so the caption is never ambiguous.
    across = 1 - axis
    middle = rng.uniform(22, IMAGE_SIZE - 22, len(rows))[:, None] + rng.uniform(
        -5, 5, (len(rows), 2)
    )
    bounded = np.clip(middle, low[rows], high[rows])
    center[rows, 0, across[rows]] = bounded[:, 0]
    center[rows, 1, across[rows]] = bounded[:, 1]
    return center.astype(np.float32)


def render(batch: SceneBatch) -> NDArray[np.uint8]:
    """Images [B, 64, 64, 3] of the scenes, one pixel of anti-aliasing at each outline."""
    pixels = np.broadcast_to(
        batch.rgb[:, 0, None, None, :], (len(batch), IMAGE_SIZE, IMAGE_SIZE, 3)
    )
    pixels = pixels.copy()
    _paint(pixels, batch, 0, np.arange(len(batch)))
    _paint(pixels, batch, 1, np.flatnonzero(batch.relation >= 0))
    return np.rint(pixels).astype(np.uint8)


def _paint(pixels: Floats, batch: SceneBatch, place: int, rows: Ints) -> None:
    grid = np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5
    for index, name in enumerate(KINDS):
        chosen = rows[batch.kind[rows, place] == index]
        radius = batch.radius[chosen, place, None, None]
        x = (grid[None, None, :] - batch.center[chosen, place, 0, None, None]) / radius
        y = (grid[None, :, None] - batch.center[chosen, place, 1, None, None]) / radius
        x, y = np.broadcast_arrays(x, y)
        coverage = np.clip(0.5 - DISTANCES[name](x, y) * radius, 0.0, 1.0)[..., None]
        paint = batch.rgb[chosen, place + 1, None, None, :]
        pixels[chosen] += coverage * (paint - pixels[chosen])


def captions(rng: np.random.Generator, batch: SceneBatch) -> list[str]:
    """A true caption of each scene; sizes are named in half of them, backgrounds in most."""
    sizes, backgrounds = rng.random(len(batch)) < 0.5, rng.random(len(batch)) < 0.85
    return [
        _leave_out(batch.scene(i), sizes=not sizes[i], background=not backgrounds[i]).caption()
        for i in range(len(batch))
    ]


def _leave_out(scene: Scene, *, sizes: bool, background: bool) -> Scene:
    shapes = tuple(Shape(s.kind, s.color, None if sizes else s.size) for s in scene.shapes)
    return Scene(shapes, scene.relation, None if background else scene.background)
