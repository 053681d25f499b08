"""Batches of the world as tensors, each a function of (seed, step)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapes.renderer import SceneBatch, captions, draw_scenes, render


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def batch(
    seed: int, step: int, count: int, *, held_out: bool = False, two_shapes: float = 0.4
) -> tuple[SceneBatch, Tensor, list[str]]:
    """Scenes, images [count, 3, 64, 64] in [0, 1], and captions of one step."""
    rng = np.random.default_rng((seed, step))
    scenes = draw_scenes(rng, count, held_out=held_out, two_shapes=two_shapes)
    return scenes, to_tensor(render(scenes)), captions(rng, scenes)
