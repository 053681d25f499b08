"""The synthetic quality score that `shapes-aesthetic` learns, and images that vary in it."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from shapes.data import batch
from shapes.degradations import add_noise, blur, uniform
from shapes.renderer import IMAGE_SIZE, SceneBatch

MAX_SIGMA: Final = 2.0
"""Pixels of Gaussian blur at which nothing is left of the sharpness."""
MAX_NOISE: Final = 0.15
"""Standard deviation of the noise at which nothing is left of the cleanness."""
FULL_CONTRAST: Final = 300.0
"""Euclidean RGB distance (of at most 442) from which the contrast is full."""


def quality(scenes: SceneBatch, sigma: Tensor, noise: Tensor) -> Tensor:
    """Score 1 + 9 (0.3 sharpness + 0.3 cleanness + 0.2 contrast + 0.2 centering), [B] in 1..10.

    sharpness = 1 - sigma / 2 with the blur's `sigma` [B] in pixels; cleanness = 1 - noise / 0.15
    with its standard deviation [B]; contrast = min(1, |RGB of first shape - RGB of background|
    / 300); centering = 1 - min(1, distance of the shapes' mean center from the middle / 32).
    """
    contrast = np.linalg.norm(scenes.rgb[:, 1] - scenes.rgb[:, 0], axis=-1) / FULL_CONTRAST
    two = (scenes.relation >= 0)[:, None]
    middle = np.where(two, scenes.center.mean(1), scenes.center[:, 0])
    half = IMAGE_SIZE / 2
    centering = 1 - np.minimum(1, np.linalg.norm(middle - half, axis=-1) / half)
    seen = 0.2 * np.minimum(1, contrast) + 0.2 * centering
    clean = 0.3 * (1 - sigma / MAX_SIGMA) + 0.3 * (1 - noise / MAX_NOISE)
    return 1 + 9 * (clean + torch.from_numpy(seen).float())


def rated_images(seed: int, step: int, count: int) -> tuple[Tensor, Tensor]:
    """Images [count, 3, 64, 64] in [0, 1] with blur and noise of any strength, and their scores."""
    scenes, images, _ = batch(seed, step, count)
    rng = np.random.default_rng((seed, step, 1))
    sigma = uniform(rng, 0, MAX_SIGMA, (count,))
    noise = uniform(rng, 0, MAX_NOISE, (count,))
    return add_noise(blur(images, sigma), noise, rng), quality(scenes, sigma, noise)
