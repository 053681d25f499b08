from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from shortft_core.rewards.photometric import brightness, colorfulness


@pytest.mark.parametrize(
    ("color", "luma"),
    [
        ((0, 0, 0), 0.0),
        ((1, 1, 1), 1.0),
        ((1, 0, 0), 0.299),
        ((0, 1, 0), 0.587),
        ((0, 0, 1), 0.114),
    ],
)
def test_brightness_of_one_color_is_its_luma(color: tuple[int, int, int], luma: float) -> None:
    image = torch.tensor(color, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 5, 7)
    assert brightness(image).item() == pytest.approx(luma, abs=1e-6)


def test_colorfulness_is_the_published_formula() -> None:
    """Hasler and Suesstrunk 2003, written again in numpy on the scale of 255."""
    image = torch.rand(3, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    red, green, blue = np.moveaxis(image.numpy().astype(np.float64) * 255, 1, 0)
    rg, yb = red - green, 0.5 * (red + green) - blue
    axes = (1, 2)
    spread = np.hypot(rg.std(axes), yb.std(axes))
    published = spread + 0.3 * np.hypot(rg.mean(axes), yb.mean(axes))
    assert (255 * colorfulness(image)).tolist() == pytest.approx(published.tolist(), rel=1e-5)


def test_grey_has_no_color_and_a_finite_slope() -> None:
    image = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8).clone().requires_grad_()
    score = colorfulness(image)
    assert score.item() <= 2e-6
    score.sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


def test_one_saturated_color_scores_by_its_offset_alone() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert colorfulness(red).item() == pytest.approx(0.3 * math.hypot(1, 0.5), abs=1e-5)
