"""Synthetic preferences: two images for one caption, one of which is better for a known reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from shapes.data import to_tensor
from shapes.degradations import add_noise, blur, cut_off, uniform
from shapes.hard_negatives import wrong_scenes
from shapes.renderer import captions, draw_scenes, render

REASONS: Final = ("blurred", "wrong", "noisy", "cut off")
"""What is the matter with the worse image; row i of a batch has reason i modulo 4."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """`better` and `worse` are images [B, 3, 64, 64] in [0, 1] of the same captions."""

    captions: list[str]
    reasons: list[str]
    better: Tensor
    worse: Tensor


def preferences(
    seed: int, step: int, count: int, *, held_out: bool = False, two_shapes: float = 0.4
) -> Preferences:
    """The pairs of one step; both images of a pair share a faint blur and noise.

    Blurred: 0.7 to 2.5 pixels more. Noisy: 0.06 to 0.25 of the range more. Wrong: one stated
    attribute. Cut off: the frame hides about half of the first shape.
    """
    rng = np.random.default_rng((seed, step))
    scenes = draw_scenes(rng, count, held_out=held_out, two_shapes=two_shapes)
    texts = captions(rng, scenes)
    row = np.arange(count) % len(REASONS)
    _, wrong = wrong_scenes(rng, scenes, texts)
    better = render(scenes)
    worse = better.copy()
    worse[row == 1] = render(wrong.select(row == 1))
    worse[row == 3] = render(cut_off(scenes.select(row == 3), rng))
    rows = torch.from_numpy(row)
    sigma, noise = uniform(rng, 0, 0.5, (count,)), uniform(rng, 0, 0.02, (count,))
    more_sigma = sigma + (rows == 0) * uniform(rng, 0.7, 2.5, (count,))
    more_noise = noise + (rows == 2) * uniform(rng, 0.06, 0.25, (count,))
    return Preferences(
        captions=texts,
        reasons=[REASONS[reason] for reason in row],
        better=add_noise(blur(to_tensor(better), sigma), noise, rng),
        worse=add_noise(blur(to_tensor(worse), more_sigma), more_noise, rng),
    )
