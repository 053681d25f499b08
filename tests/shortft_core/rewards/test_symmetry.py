from __future__ import annotations

import math
from typing import Literal, get_args

import pytest
import torch
from torch import Tensor

from shortft_core.rewards.symmetry import asymmetry, build
from shortft_core.spec import rewards as spec

Metric = Literal["rgb_l2", "l1"]
Axis = Literal["horizontal", "vertical"]
METRICS: tuple[Metric, ...] = get_args(Metric)
AXES: tuple[Axis, ...] = get_args(Axis)
EDGE: dict[Axis, int] = {"horizontal": -1, "vertical": -2}

pytestmark = [pytest.mark.parametrize("metric", METRICS), pytest.mark.parametrize("axis", AXES)]


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_symmetric_images_are_at_distance_zero(metric: Metric, axis: Axis) -> None:
    half = noise(2, 3, 12, 12)
    images = torch.cat([half, half.flip(EDGE[axis])], dim=EDGE[axis]).requires_grad_()
    distance = asymmetry(images, metric, axis)
    assert distance.max() <= 1e-6 + 1e-9
    distance.sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


def test_black_beside_white_is_at_the_greatest_distance(metric: Metric, axis: Axis) -> None:
    images = torch.zeros(1, 3, 8, 8)
    images.narrow(EDGE[axis], 0, 4).fill_(1.0)
    greatest = {"rgb_l2": 2 * math.sqrt(3), "l1": 2.0}[metric]
    assert asymmetry(images, metric, axis).item() == pytest.approx(greatest, rel=1e-6)
    other: Axis = "vertical" if axis == "horizontal" else "horizontal"
    assert asymmetry(images, metric, other).item() <= 1.01e-6


def test_mirroring_changes_nothing(metric: Metric, axis: Axis) -> None:
    images = noise(2, 3, 9, 14)
    for edge in (-1, -2):
        torch.testing.assert_close(
            asymmetry(images.flip(edge), metric, axis), asymmetry(images, metric, axis)
        )


def test_gradient_is_exact(metric: Metric, axis: Axis) -> None:
    images = noise(2, 3, 4, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: asymmetry(x, metric, axis), images)


def test_ascent_of_the_reward_makes_the_image_symmetric(metric: Metric, axis: Axis) -> None:
    term = spec.Symmetry(metric=metric, axis=axis)
    reward = build(term, device=torch.device("cpu"), dtype=torch.float32, field="rewards.0")
    images = noise(1, 3, 16, 16)
    before = asymmetry(images, metric, axis).item()
    for _ in range(50):
        images.requires_grad_()
        (slope,) = torch.autograd.grad(reward.score(images, [""]).sum(), images)
        images = (images + 0.01 * slope / slope.abs().max()).detach()
    assert asymmetry(images, metric, axis).item() < 0.2 * before
