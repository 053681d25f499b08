"""Measured against PIL, transformers' PIL processor and torchvision, the makers of the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from shortft_core import preprocessing as p


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A stored image [1, 3, H, W]: noise, hard shapes and saturated areas, k / 255 exactly."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 12, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = torch.randn(1, 3, height, width, generator=generator)
    image = 0.5 + 0.4 * smooth + 0.08 * noise
    image[..., height // 4 : height // 2, width // 3 : width // 2] = 1.0
    image[..., height // 2 : 3 * height // 4, width // 5 : width // 3] = 0.0
    return p.quantize(image)


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())


def levels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("side", [512, 768, 1024])
def test_exact_resize_is_pil_within_one_level(side: int) -> None:
    image = picture(side, side)
    reference = levels(pil(image).resize((224, 224), Image.Resampling.BICUBIC))
    difference = (p.resize_like_pil(image, (224, 224)) * 255 - reference).abs()
    assert difference.max() <= 1.001
    assert difference.mean() <= 0.001


@pytest.mark.parametrize("side", [512, 768, 1024])
def test_float_resize_is_pil_but_for_rounding_and_overshoot(side: int) -> None:
    image = picture(side, side)
    reference = levels(pil(image).resize((224, 224), Image.Resampling.BICUBIC))
    difference = (p.resize(image, (224, 224)) * 255 - reference).abs()
    assert difference.max() <= 20
    assert 0.2 <= difference.mean() <= 0.35


def test_exact_enlarging_is_pil_within_two_levels() -> None:
    image = picture(128, 128)
    reference = levels(pil(image).resize((224, 224), Image.Resampling.BICUBIC))
    assert (p.resize_like_pil(image, (224, 224)) * 255 - reference).abs().max() <= 2.001


def test_exact_and_float_resize_have_one_gradient() -> None:
    weights = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for resize in (p.resize, p.resize_like_pil):
        image = picture(150, 150).requires_grad_()
        (resize(image, (64, 64)) * weights).sum().backward()
        assert image.grad is not None
        gradients.append(image.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [512, 768, 1024])
def test_every_pixel_is_reached(side: int) -> None:
    weights = torch.randn(1, 1, 224, 224, generator=torch.Generator().manual_seed(2))
    image = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(3))
    image.requires_grad_()
    (gradient,) = torch.autograd.grad((p.resize(image, (224, 224)) * weights).sum(), image)
    assert (gradient != 0).all()


def test_without_antialias_pixels_are_lost() -> None:
    image = torch.rand(1, 1, 1024, 1024).requires_grad_()
    resized = p.resize(image, (224, 224), antialias=False)
    (gradient,) = torch.autograd.grad(resized.sum(), image)
    assert 0.2 < (gradient == 0).float().mean() < 0.3


def test_quantize_gives_stored_levels_and_passes_the_gradient() -> None:
    image = torch.linspace(-0.2, 1.2, 1001).requires_grad_()
    stored = p.quantize(image)
    assert torch.equal(stored, (stored * 255).round() / 255)
    assert (stored.min().item(), stored.max().item()) == (0, 1)
    stored.sum().backward()
    assert image.grad is not None
    assert torch.equal(image.grad, torch.ones_like(image))


@pytest.mark.parametrize("size", [(512, 384), (300, 517), (517, 300), (64, 64), (28, 40)])
def test_shortest_edge_crop_is_the_transformers_processor(size: tuple[int, int]) -> None:
    image = picture(*size)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    reference = processor(pil(image), return_tensors="pt")["pixel_values"]
    pixels = p.shortest_edge_crop(image, 28, exact=True)
    assert pixels.shape == reference.shape
    assert (pixels - reference).abs().max() <= 1.01 / 255 / min(p.CLIP_STD)
    assert (pixels - reference).abs().mean() <= 1e-4


def test_normalization_is_that_of_clip() -> None:
    image = picture(20, 30)
    expected = tv.normalize(image, list(p.CLIP_MEAN), list(p.CLIP_STD))
    torch.testing.assert_close(p.normalize(image), expected)


def official_letterbox(image: Tensor, size: int) -> Tensor:
    """ResizeMaxSize of HPS v2, in the words of torchvision; then CLIP's statistics."""
    scale = size / max(image.shape[-2:])
    target = [round(side * scale) for side in image.shape[-2:]]
    image = tv.resize(image, target, InterpolationMode.BICUBIC, antialias=True)
    rows, columns = size - target[0], size - target[1]
    bars = [columns // 2, rows // 2, columns - columns // 2, rows - rows // 2]
    padded: Tensor = tv.pad(image, bars)
    return p.normalize(padded)


@pytest.mark.parametrize("size", [(512, 512), (512, 384), (768, 1152), (100, 65), (64, 64)])
def test_letterbox_is_the_official_transform(size: tuple[int, int]) -> None:
    image = picture(*size)
    torch.testing.assert_close(
        p.letterbox(image, 224), official_letterbox(image, 224), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("size", "content"),
    [
        ((512, 512), (0, 224, 0, 224)),
        ((512, 384), (0, 224, 28, 196)),
        ((768, 1152), (37, 186, 0, 224)),
        ((1, 1000), (111, 112, 0, 224)),
    ],
)
def test_letterbox_geometry(size: tuple[int, int], content: tuple[int, int, int, int]) -> None:
    black = p.normalize(torch.zeros(1, 3, 224, 224))
    bars = (p.letterbox(torch.ones(1, 3, *size), 224) == black).all(dim=1)[0]
    rows, columns = torch.nonzero(~bars, as_tuple=True)
    found = (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
    assert tuple(int(edge) for edge in found) == content
    assert (~bars).sum() == (content[1] - content[0]) * (content[3] - content[2])


def test_exact_letterbox_only_starts_from_stored_levels() -> None:
    image = torch.rand(1, 3, 90, 60, generator=torch.Generator().manual_seed(4))
    assert torch.equal(p.letterbox(image, 28, exact=True), p.letterbox(p.quantize(image), 28))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_resized_in_full_precision(dtype: torch.dtype) -> None:
    image = picture(80, 64).to(dtype)
    for pixels in (p.letterbox(image, 28), p.shortest_edge_crop(image, 28)):
        assert pixels.dtype == torch.float32
        assert torch.isfinite(pixels).all()
