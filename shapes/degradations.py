"""Ways in which pictures get worse; the mild ones keep every attribute of the scene readable."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from shapes.data import to_tensor
from shapes.renderer import IMAGE_SIZE, SceneBatch

KERNEL_RADIUS: Final = 6


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of images [B, 3, H, W], each with its own `sigma` [B] in pixels."""
    offsets = torch.arange(-KERNEL_RADIUS, KERNEL_RADIUS + 1, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None].clamp(min=0.05)).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, dim=0)
    count, _, height, width = images.shape
    planes = images.reshape(1, 3 * count, height, width)
    for shape, padding in (
        ((-1, 1, 1, 2 * KERNEL_RADIUS + 1), (KERNEL_RADIUS, KERNEL_RADIUS, 0, 0)),
        ((-1, 1, 2 * KERNEL_RADIUS + 1, 1), (0, 0, KERNEL_RADIUS, KERNEL_RADIUS)),
    ):
        padded = F.pad(planes, padding, mode="replicate")
        planes = F.conv2d(padded, kernels.reshape(shape), groups=3 * count)
    return planes.reshape(images.shape)


def add_noise(images: Tensor, strength: Tensor, rng: np.random.Generator) -> Tensor:
    """Gaussian noise with standard deviation `strength` [B] in units of the range [0, 1]."""
    noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
    return (images + strength[:, None, None, None] * noise).clamp(0, 1)


def shift_color(images: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Adds up to `amount` to each channel and scales the contrast by up to `amount`."""
    added = uniform(rng, -amount, amount, (len(images), 3, 1, 1))
    factor = 1 + uniform(rng, -amount, amount, (len(images), 1, 1, 1))
    return ((images - 0.5) * factor + 0.5 + added).clamp(0, 1)


def halve(images: Tensor) -> Tensor:
    """Half the resolution and back, the softness of latents that are two times too coarse."""
    small = F.avg_pool2d(images, 2)
    return F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)


def compress(images: Tensor, rng: np.random.Generator) -> Tensor:
    """JPEG at a quality of 40 to 90."""
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    kept = []
    for picture in pixels:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=int(rng.integers(40, 91)))
        kept.append(np.asarray(Image.open(buffer)))
    return to_tensor(np.stack(kept))


def soften(
    images: Tensor, rng: np.random.Generator, reconstruct: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Mild degradations that mimic generated images; a quarter of the batch stays clean.

    Of each 16 images, 4 stay clean, 4 are blurred, 2 halved, 2 compressed, 4 go through
    `reconstruct` (a VAE) if there is one and are blurred otherwise; then all but the clean ones
    get a color shift and noise. The order of the batch has to be random.
    """
    count = len(images)
    cut = [round(count * share) for share in (4 / 16, 8 / 16, 10 / 16, 12 / 16)]
    clean, to_blur, to_halve, to_compress, rest = torch.tensor_split(images, cut)
    parts = [
        blur(to_blur, uniform(rng, 0.2, 1.3, (len(to_blur),))),
        halve(to_halve),
        compress(to_compress, rng),
        reconstruct(rest) if reconstruct else blur(rest, uniform(rng, 0.2, 0.8, (len(rest),))),
    ]
    worse = shift_color(torch.cat(parts).clamp(0, 1), 0.05, rng)
    return torch.cat([clean, add_noise(worse, uniform(rng, 0, 0.05, (len(worse),)), rng)])


def cut_off(scenes: SceneBatch, rng: np.random.Generator) -> SceneBatch:
    """The same scenes moved until the frame hides about half of the first shape."""
    count = len(scenes)
    axis, far = rng.integers(0, 2, count), rng.integers(0, 2, count)
    rows = np.arange(count)
    inside = scenes.radius[:, 0] * rng.uniform(-0.3, 0.3, count)
    target = np.where(far == 1, IMAGE_SIZE - inside, inside)
    center = scenes.center.copy()
    center[rows, :, axis] += (target - center[rows, 0, axis])[:, None].astype(np.float32)
    return replace(scenes, center=center)


def uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Tensor:
    """float32 tensor of random numbers in [low, high)."""
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))
