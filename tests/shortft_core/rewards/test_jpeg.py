"""The estimate of a JPEG's size against the files that PIL writes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from shortft_core.rewards import jpeg

QUALITY = 95


def noise(side: int, exponent: float, contrast: float, seed: int) -> Tensor:
    """1/f^exponent noise in half-correlated colors, [3, side, side], k / 255 exactly."""
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.fft.fftfreq(side)
    radius = (frequency[:, None].square() + frequency.square()).sqrt()
    radius[0, 0] = 1.0
    white = torch.randn(3, side, side, generator=generator)
    image: Tensor = torch.fft.ifft2(torch.fft.fft2(white) / radius**exponent).real
    image = image / image.std(dim=(1, 2), keepdim=True)
    image = (image + image[:1]) / 2
    return ((0.5 + contrast * image / image.std()).clamp(0, 1) * 255).round() / 255


def noises(side: int) -> Tensor:
    exponents, contrasts = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5), (0.05, 0.15, 0.25)
    return torch.stack([noise(side, e, c, seed=0) for e in exponents for c in contrasts])


def ranks(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).argsort().argsort().double()


@pytest.mark.parametrize("quality", [1, 30, 49, 50, 80, 95, 100])
def test_quantization_tables_are_those_of_pil(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
    with Image.open(file) as saved:
        tables = saved.quantization  # type: ignore[attr-defined]
    for index, base in enumerate((jpeg.LUMINANCE, jpeg.CHROMINANCE)):
        table = jpeg.quantization_table(base, quality)
        assert table.flatten().int().tolist() == list(tables[index])


@pytest.mark.parametrize("side", [64, 128, 256])
def test_calibrated_estimate_is_within_ten_percent_on_noise(side: int) -> None:
    images = noises(side)
    sizes = jpeg.pil_kilobytes(images, QUALITY)
    error = (jpeg.estimate_kilobytes(images, QUALITY) - sizes).abs() / sizes
    assert error.max() < 0.10


def test_the_constant_is_what_a_fit_gives() -> None:
    """Least squares of the relative error, over sizes, exponents and contrasts."""
    logs, rest, sizes = [], [], []
    for side in (64, 128, 256):
        images = noises(side)
        logs.append(jpeg.log_magnitudes(images, QUALITY) / 8000)
        sizes.append(jpeg.pil_kilobytes(images, QUALITY))
        overhead = jpeg.HEADER_BYTES + jpeg.FLAT_BITS_PER_MCU / 8 * (side // 16) ** 2
        rest.append(sizes[-1] - overhead / 1000)
    x, y = torch.cat(logs) / torch.cat(sizes), torch.cat(rest) / torch.cat(sizes)
    assert (x @ y / (x @ x)).item() == pytest.approx(jpeg.BITS_PER_DOUBLING, abs=0.01)


@pytest.mark.parametrize("side", [16, 64, 512])
def test_a_flat_image_costs_its_overhead_alone(side: int) -> None:
    images = torch.full((1, 3, side, side), 128 / 255)
    assert jpeg.log_magnitudes(images, QUALITY).item() < 2
    estimate = jpeg.estimate_kilobytes(images, QUALITY).item()
    assert estimate == pytest.approx(jpeg.pil_kilobytes(images, QUALITY).item(), abs=0.005)


@pytest.mark.parametrize("quality", [50, 80, 95])
def test_the_order_of_blurred_noise_is_that_of_pil(quality: int) -> None:
    sharp = noises(96)
    images = torch.cat([sharp] + [tv.gaussian_blur(sharp, [9, 9], [s, s]) for s in (0.5, 1.0, 2.0)])
    images = (images * 255).round() / 255
    estimated = ranks(jpeg.estimate_kilobytes(images, quality).tolist())
    actual = ranks(jpeg.pil_kilobytes(images, quality).tolist())
    assert np.corrcoef(estimated, actual)[0, 1] > 0.97


def test_blur_shrinks_monotonically() -> None:
    image = noise(128, 1.0, 0.2, seed=1)[None]
    blurred = [image] + [tv.gaussian_blur(image, [13, 13], [s, s]) for s in (0.4, 0.8, 1.6, 3.0)]
    sizes = [jpeg.estimate_kilobytes(picture, QUALITY).item() for picture in blurred]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[-1]


def test_sides_are_padded_to_whole_units_by_their_edges() -> None:
    image = noise(48, 1.0, 0.2, seed=2)[None, :, :40, :33]
    edges = torch.nn.functional.pad(image, (0, 15, 0, 8), mode="replicate")
    torch.testing.assert_close(
        jpeg.estimate_kilobytes(image, QUALITY), jpeg.estimate_kilobytes(edges, QUALITY)
    )
    file = jpeg.pil_kilobytes(image, QUALITY).item()
    assert jpeg.estimate_kilobytes(image, QUALITY).item() == pytest.approx(file, rel=0.1)


def test_gradient_is_exact() -> None:
    images = noise(16, 1.0, 0.2, seed=3)[None].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: jpeg.log_magnitudes(x, QUALITY), images, eps=1e-7, fast_mode=True
    )


def test_exact_score_is_the_size_of_the_file_with_the_slope_of_the_estimate() -> None:
    reward = jpeg.JpegSize("compressibility", sign=-1, quality=QUALITY)
    images = noises(64).requires_grad_()
    exact = reward.score(images, [""] * len(images), exact=True)
    assert torch.equal(exact, -jpeg.pil_kilobytes(images, QUALITY))
    slopes = [
        torch.autograd.grad(reward.score(images, [], exact=on).sum(), images)[0]
        for on in (True, False)
    ]
    assert torch.equal(*slopes)
