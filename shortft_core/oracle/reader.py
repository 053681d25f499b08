"""The network that reads pictures of the `shapes` world; a held-out judge, never a reward."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from shortft_core import weights
from shortft_core.errors import PromptError, UserError, WeightsError
from shortft_core.oracle.reading import Comparison, Reading, SeenShape, compare
from shortft_core.oracle.scene import COLOR_NAMES, KINDS, SIZE_NAMES, Scene, parse

IMAGE_SIZE: Final = 64
CELL: Final = 8
"""Pixels along one side of a cell of the detection grid."""
MAX_SHAPES: Final = 3
MIN_CONFIDENCE: Final = 0.5
MIN_DISTANCE: Final = 1.5 * CELL
"""Pixels; a weaker center that is nearer than this to a stronger one is the same shape."""
FOLDER: Final = weights.BUNDLED / "oracle"


@dataclass(frozen=True, slots=True)
class Detections:
    """What the network says of each cell and of the whole picture; logits except `center`."""

    presence: Tensor  # [B, 8, 8]
    kind: Tensor  # [B, 8, 8, kinds]
    color: Tensor  # [B, 8, 8, colors]
    size: Tensor  # [B, 8, 8, sizes]
    center: Tensor  # [B, 8, 8, 2] pixels, (x, y)
    background: Tensor  # [B, colors]


class Reader(nn.Module):
    """Fully convolutional detector: one shape at most per cell of 8 x 8 pixels."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        fine, half, middle, coarse = widths
        self.body = nn.Sequential(
            _block(3, fine, kernel=5, stride=2),
            _block(fine, half),
            _block(half, middle, stride=2),
            _block(middle, middle),
            _block(middle, coarse, stride=2),
            *(_Residual(coarse) for _ in range(3)),
        )
        self.splits = (1, len(KINDS), len(COLOR_NAMES), len(SIZE_NAMES), 2)
        self.cells = nn.Conv2d(coarse, sum(self.splits), 1)
        self.background = nn.Linear(2 * coarse, len(COLOR_NAMES))

    def forward(self, images: Tensor) -> Detections:
        """Reads images [B, 3, 64, 64] in [0, 1]."""
        features = self.body(images * 2 - 1)
        cells = self.cells(features).permute(0, 2, 3, 1).float()
        presence, kind, color, size, offset = cells.split(self.splits, dim=-1)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        return Detections(
            presence=presence.squeeze(-1),
            kind=kind,
            color=color,
            size=size,
            center=(_corners(offset.shape[1]).to(offset) + offset + 0.5) * CELL,
            background=self.background(pooled).float(),
        )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = _block(width, width)

    def forward(self, features: Tensor) -> Tensor:
        refined: Tensor = self.block(features)
        return features + refined


def _block(inner: int, outer: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False),
        nn.GroupNorm(8, outer),
        nn.SiLU(),
    )


def _corners(count: int) -> Tensor:
    """Cell indices [count, count, 2] as (x, y)."""
    rows, columns = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    return torch.stack([columns, rows], dim=-1)


@torch.no_grad()
def read(network: Reader, images: Tensor) -> list[Reading]:
    """The shapes of images [B, 3, 64, 64] in [0, 1]; raises UserError for any other size."""
    if images.ndim != 4 or images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise UserError(
            "images",
            f"the oracle cannot read pictures of shape {tuple(images.shape[1:])}",
            f"Give it RGB pictures of {IMAGE_SIZE} x {IMAGE_SIZE}, the size of the shapes model",
        )
    return _decode(network(images))


def _decode(found: Detections) -> list[Reading]:
    """The strongest centers of each image, each one far enough from all stronger ones."""
    presence = found.presence.flatten(1).sigmoid()
    kinds, colors, sizes = (
        logits.flatten(1, 2).argmax(-1).tolist() for logits in (found.kind, found.color, found.size)
    )
    centers = found.center.flatten(1, 2)
    places, confidences = (values.tolist() for values in _peaks(presence, centers))
    backgrounds = found.background.argmax(-1).tolist()
    points = centers.tolist()
    return [
        Reading(
            shapes=tuple(
                SeenShape(
                    kind=KINDS[kinds[image][place]],
                    color=COLOR_NAMES[colors[image][place]],
                    size=SIZE_NAMES[sizes[image][place]],
                    x=points[image][place][0],
                    y=points[image][place][1],
                    confidence=confidence,
                )
                for place, confidence in zip(places[image], confidences[image], strict=True)
                if confidence >= MIN_CONFIDENCE
            ),
            background=COLOR_NAMES[background],
        )
        for image, background in enumerate(backgrounds)
    ]


def _peaks(presence: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Cells [B, MAX_SHAPES] of the peaks, the surest first, and their confidences.

    Cells that tell of the same center are one peak: next to a border two or four of them share
    its presence, so their presences add up.
    """
    left, rows = presence, torch.arange(len(presence), device=presence.device)
    places, confidences = [], []
    for _ in range(MAX_SHAPES):
        place = left.argmax(-1)
        same = (centers - centers[rows, place][:, None]).norm(dim=-1) < MIN_DISTANCE
        places.append(place)
        confidences.append(torch.where(same, left, 0.0).sum(-1).clamp(max=1.0))
        left = left.masked_fill(same, 0.0)
    place, confidence = torch.stack(places, dim=1), torch.stack(confidences, dim=1)
    surest_first = confidence.argsort(dim=1, descending=True, stable=True)
    return place.gather(1, surest_first), confidence.gather(1, surest_first)


class OracleJudge:
    """Scores a picture by the share of its caption's stated attributes that it shows."""

    name: ClassVar[str] = "oracle"

    def __init__(self, network: Reader) -> None:
        self.network = network.eval().requires_grad_(False)

    def compare(self, images: Tensor, prompts: Sequence[str]) -> list[Comparison]:
        """Attribute by attribute, for images [B, 3, 64, 64] in [0, 1] and their captions.

        Raises PromptError for a prompt outside the grammar, UserError for another image size.
        """
        scenes = list(_scenes(prompts))
        readings = read(self.network, images.to(next(self.network.parameters())))
        return [compare(*pair) for pair in zip(readings, scenes, strict=True)]

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:  # noqa: ARG002
        """Shares [B] in [0, 1], without gradient; `exact` changes nothing: nothing is resized."""
        shares = [comparison.share for comparison in self.compare(images, prompts)]
        return torch.tensor(shares, device=images.device)


def _scenes(prompts: Sequence[str]) -> Iterator[Scene]:
    for prompt in prompts:
        scene = parse(prompt)
        if scene is None:
            raise PromptError(
                "prompts",
                f"the oracle cannot judge {prompt!r}",
                "Write captions such as 'a red circle above a blue star on a white background'",
            )
        yield scene


def load_reader(folder: Path = FOLDER) -> Reader:
    """The trained network in float32; raises WeightsError if it does not fit the vocabulary."""
    path = folder / "model.safetensors"
    tensors = weights.read_tensors(path, field="oracle")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["kinds"] != list(KINDS) or config["colors"] != list(COLOR_NAMES):
        raise WeightsError(
            "oracle", f"{folder} was trained on another vocabulary", "Train it again from shapes/"
        )
    network = Reader(config["widths"])
    weights.load_strict(network, tensors, field="oracle", path=path)
    return network


def build(*, device: torch.device, dtype: torch.dtype) -> OracleJudge:  # noqa: ARG001
    """The bundled judge; `dtype` is that of the pictures, reading is always float32."""
    return OracleJudge(load_reader().to(device))
