"""How far an image is from its own mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from shortft_core.spec import rewards as spec

_EPSILON: Final = 1e-12
"""Inside the root, whose slope at an exactly symmetric pixel would be infinite."""


def asymmetry(
    images: Tensor,
    metric: Literal["rgb_l2", "l1"] = "rgb_l2",
    axis: Literal["horizontal", "vertical"] = "horizontal",
) -> Tensor:
    """Mean distance of [B, 3, H, W] in [0, 1] from its mirror image, on the scale [-1, 1], [B].

    Our own definition: the papers print no formula. `rgb_l2` is of their order of magnitude.
    """
    difference = 2 * (images - images.flip(-1 if axis == "horizontal" else -2))
    if metric == "l1":
        return difference.abs().mean(dim=(1, 2, 3))
    return (difference.square().sum(dim=1) + _EPSILON).sqrt().mean(dim=(1, 2))


class Symmetry:
    """Minus `asymmetry`; best with a prompt-aware reward beside it, for blank images win."""

    name = "symmetry"

    def __init__(self, term: spec.Symmetry) -> None:
        self._metric = term.metric
        self._axis = term.axis

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Minus the distance, float32 [B]; there is no preprocessing that could be exact."""
        del prompts, exact
        return -asymmetry(images.float(), self._metric, self._axis)


def build(term: spec.Symmetry, *, device: torch.device, dtype: torch.dtype, field: str) -> Symmetry:
    """Needs no weights."""
    del device, dtype, field
    return Symmetry(term)
