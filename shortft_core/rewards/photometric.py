"""Rewards with closed formulas of the pixels: for demonstrations and end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from shortft_core.spec import rewards as spec

REC_601: Final = (0.299, 0.587, 0.114)
_EPSILON: Final = 1e-12
"""Inside the roots, whose slope at a grey image would be infinite."""


def brightness(images: Tensor) -> Tensor:
    """Mean Rec. 601 luma of [B, 3, H, W], [B]."""
    return (images * images.new_tensor(REC_601).view(3, 1, 1)).sum(dim=1).mean(dim=(1, 2))


def colorfulness(images: Tensor) -> Tensor:
    """Hasler and Suesstrunk 2003: spread plus 0.3 times offset of the two opponent colors, [B].

    Their scale is 255 times this one.
    """
    red, green, blue = images.unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
    spread = (opponents.var(dim=(2, 3), correction=0).sum(dim=1) + _EPSILON).sqrt()
    offset = (opponents.mean(dim=(2, 3)).square().sum(dim=1) + _EPSILON).sqrt()
    return spread + 0.3 * offset


class Photometric:
    """A formula of the pixels under a reward's name; ignores the prompt."""

    def __init__(self, name: str, formula: Callable[[Tensor], Tensor]) -> None:
        self.name = name
        self._formula = formula

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """The formula in float32 [B]; there is no preprocessing that could be exact."""
        del prompts, exact
        return self._formula(images.float())


def build_brightness(
    term: spec.Brightness, *, device: torch.device, dtype: torch.dtype, field: str
) -> Photometric:
    """Needs no weights."""
    del device, dtype, field
    return Photometric(term.name, brightness)


def build_colorfulness(
    term: spec.Colorfulness, *, device: torch.device, dtype: torch.dtype, field: str
) -> Photometric:
    """Needs no weights."""
    del device, dtype, field
    return Photometric(term.name, colorfulness)
