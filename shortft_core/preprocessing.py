"""How rewards look at images: the resizes of PIL and of HPS, differentiable, and CLIP's scaling.

Images are [B, 3, H, W] in [0, 1]; everything is computed in float32, because antialiased resizing
does not exist in half precision on CPU and half cannot hold the scores' third digit.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)


def normalize(images: Tensor) -> Tensor:
    """Standardizes each channel with the statistics of OpenAI's CLIP, which all rewards share."""
    mean = images.new_tensor(CLIP_MEAN).view(3, 1, 1)
    std = images.new_tensor(CLIP_STD).view(3, 1, 1)
    return (images - mean) / std


def quantize(images: Tensor) -> Tensor:
    """Rounds to the 256 levels of a stored image; the gradient passes straight through."""
    levels = (images.detach().clamp(0, 1) * 255).round() / 255
    # Adding a zero that carries the gradient keeps the values exact to the bit.
    return levels + (images - images.detach())


def resize(images: Tensor, size: tuple[int, int], *, antialias: bool = True) -> Tensor:
    """Bicubic resize to (height, width) of float tensors, as torchvision does; may overshoot."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(
        images, size=size, mode="bicubic", align_corners=False, antialias=antialias
    )


def resize_like_pil(images: Tensor, size: tuple[int, int]) -> Tensor:
    """PIL's `Image.resize(BICUBIC)` on uint8: columns, then rows, rounded after each.

    Differs from PIL by at most one grey level when shrinking; the gradient is that of `resize`.
    """
    height, width = size
    columns = quantize(resize(quantize(images), (images.shape[-2], width)))
    return quantize(resize(columns, (height, width)))


def shortest_edge_crop(images: Tensor, size: int, *, exact: bool = False) -> Tensor:
    """CLIP's preprocessing: the shorter side becomes `size`, the center square stays, normalized.

    Sizes and offsets follow transformers. `exact` starts from uint8 and resizes as PIL does.
    """
    images = images.float()
    height, width = images.shape[-2:]
    short = min(height, width)
    target = (size * height // short, size * width // short)
    resized = resize_like_pil(images, target) if exact else resize(images, target)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return normalize(resized[..., top : top + size, left : left + size])


def letterbox(images: Tensor, size: int, *, antialias: bool = True, exact: bool = False) -> Tensor:
    """HPS v2's preprocessing: the longer side becomes `size`, black bars fill the rest, normalized.

    The official code resizes the float tensor without clipping, so `exact` only starts from uint8.
    """
    images = quantize(images.float()) if exact else images.float()
    scale = size / max(images.shape[-2:])
    height, width = (max(1, round(side * scale)) for side in images.shape[-2:])
    resized = resize(images, (height, width), antialias=antialias)
    top, left = (size - height) // 2, (size - width) // 2
    bars = (left, size - width - left, top, size - height - top)
    return normalize(F.pad(resized, bars))
