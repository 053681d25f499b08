"""The size of an image as a JPEG file, estimated differentiably from its DCT coefficients."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from shortft_core.spec import rewards as spec

# ITU-T T.81, Annex K: the tables that libjpeg, and so PIL, scales by the quality.
LUMINANCE: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# RGB to YCbCr of JFIF; the level shift of 128 is taken from Y, and cancels in Cb and Cr.
_YCBCR: Final = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_MCU_PIXELS: Final = 16
"""Side of the unit of 4:2:0: four luma blocks, one block of each chroma."""


def quantization_table(base: Sequence[Sequence[int]], quality: int) -> Tensor:
    """An Annex K table at a quality, scaled as libjpeg does, [8, 8]."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(base) * scale + 50) // 100).clamp(1, 255).float()


def log_magnitudes(images: Tensor, quality: int) -> Tensor:
    """Sum of log2(1 + |c / q|) over all quantized coefficients of [B, 3, H, W] in [0, 1], [B].

    Baseline JPEG as PIL writes it: 4:2:0, 8x8 DCT, DC as the difference to the block before.
    """
    height, width = images.shape[-2:]
    edges = (0, -width % _MCU_PIXELS, 0, -height % _MCU_PIXELS)
    padded = F.pad(images, edges, mode="replicate")
    colors = torch.einsum("yc,bchw->byhw", padded.new_tensor(_YCBCR), padded * 255)
    luma, chroma = colors[:, :1] - 128, F.avg_pool2d(colors[:, 1:], 2)
    planes = (luma, LUMINANCE), (chroma[:, :1], CHROMINANCE), (chroma[:, 1:], CHROMINANCE)
    return torch.stack([_plane_bits(p, quantization_table(t, quality)) for p, t in planes]).sum(0)


def _plane_bits(plane: Tensor, table: Tensor) -> Tensor:
    kernels = _dct_kernels().to(plane)
    coefficients = F.conv2d(plane, kernels, stride=8) / table.to(plane).view(64, 1, 1)
    dc, ac = coefficients[:, :1].flatten(1), coefficients[:, 1:].flatten(1)
    dc = torch.diff(dc, dim=1, prepend=torch.zeros_like(dc[:, :1]))
    return torch.log2(1 + torch.cat([dc, ac], dim=1).abs()).sum(dim=1)


def _dct_kernels() -> Tensor:
    """The 64 basis images of the orthonormal two-dimensional DCT-II, [64, 1, 8, 8]."""
    k, n = torch.arange(8.0).view(8, 1), torch.arange(8.0)
    basis = torch.cos(math.pi / 8 * (n + 0.5) * k) / 2
    basis[0] /= math.sqrt(2)
    return torch.einsum("ui,vj->uvij", basis, basis).reshape(64, 1, 8, 8)


HEADER_BYTES: Final = 623
"""Markers, quantization and Huffman tables of a file that PIL writes."""
FLAT_BITS_PER_MCU: Final = 32
"""Codes of a unit without content: six times "same DC" and "end of block"."""
BITS_PER_DOUBLING: Final = 2.46
"""Fitted to PIL's sizes of 1/f noise at quality 95; the test of this module fits it again."""


def estimate_kilobytes(images: Tensor, quality: int) -> Tensor:
    """Size in kB (1000 bytes) of each image as a JPEG, differentiable, [B].

    Within 10 % of PIL at quality 95; the order holds at other qualities, the level less so.
    """
    height, width = images.shape[-2:]
    units = math.ceil(height / _MCU_PIXELS) * math.ceil(width / _MCU_PIXELS)
    content = BITS_PER_DOUBLING * log_magnitudes(images, quality)
    return (HEADER_BYTES + (FLAT_BITS_PER_MCU * units + content) / 8) / 1000


def pil_kilobytes(images: Tensor, quality: int) -> Tensor:
    """Size in kB of the files that PIL writes, as DDPO measures it; no gradient, [B]."""
    levels = (images.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu()
    sizes = []
    for picture in levels.numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        sizes.append(file.tell() / 1000)
    return images.new_tensor(sizes)


class JpegSize:
    """The size in kB times `sign`; ignores the prompt."""

    def __init__(self, name: str, *, sign: int, quality: int) -> None:
        self.name = name
        self._sign = sign
        self._quality = quality

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Kilobytes in float32 [B]; `exact` gives PIL's, with the gradient of the estimate."""
        del prompts
        kilobytes = estimate_kilobytes(images.float(), self._quality)
        if exact:
            gradient_only = kilobytes - kilobytes.detach()
            kilobytes = pil_kilobytes(images.float(), self._quality) + gradient_only
        return self._sign * kilobytes


def build_compressibility(
    term: spec.Compressibility, *, device: torch.device, dtype: torch.dtype, field: str
) -> JpegSize:
    """DDPO's compressibility with a gradient; needs no weights."""
    del device, dtype, field
    return JpegSize(term.name, sign=-1, quality=term.quality)


def build_incompressibility(
    term: spec.Incompressibility, *, device: torch.device, dtype: torch.dtype, field: str
) -> JpegSize:
    """DDPO's incompressibility with a gradient; needs no weights."""
    del device, dtype, field
    return JpegSize(term.name, sign=1, quality=term.quality)


class JpegFileSize:
    """DDPO's compressibility as published: minus the kilobytes of PIL's own file, no gradient."""

    def __init__(self, name: str, quality: int) -> None:
        self.name, self._quality = name, quality

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Minus kilobytes in float32 [B]."""
        del prompts, exact
        return -pil_kilobytes(images.detach().float(), self._quality)


def build_jpeg_size(
    term: spec.JpegFileSize, *, device: torch.device, dtype: torch.dtype, field: str
) -> JpegFileSize:
    """DDPO's own compressibility; needs no weights."""
    del device, dtype, field
    return JpegFileSize(term.name, quality=term.quality)
