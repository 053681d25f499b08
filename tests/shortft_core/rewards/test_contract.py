"""What every reward of the catalog owes its callers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from shortft_core import rewards
from shortft_core.catalog import REWARDS
from shortft_core.rewards import Composite
from shortft_core.weights import BUNDLED

PROMPTS = ("a large red circle", "a small blue square on a white background", "two stars")


def _has_bundled(name: str) -> bool:
    """Whether the source `shapes` of a reward has been made."""
    entry = REWARDS[name]
    if entry.preset:
        return all(_has_bundled(part) for part in entry.preset)
    parts = entry.weights.get("shapes", {}).values()
    return bool(parts) and all((BUNDLED / str(part.bundled)).is_dir() for part in parts)


def cases() -> Iterator[tuple[str, str]]:
    for name, entry in REWARDS.items():
        if not entry.preset:
            yield name, "tiny" if entry.weights else "none"
        if _has_bundled(name):
            yield name, "shapes"


CASES = list(cases())
SMOOTH = [(name, source) for name, source in CASES if REWARDS[name].differentiable]


def build(name: str, source: str, tiny_sources: dict[str, dict[str, Any]]) -> Composite:
    settings: dict[str, Any] = {"source": {"name": "shapes"}} if source == "shapes" else {}
    if source == "tiny":
        settings = tiny_sources[name]
    term = REWARDS[name].spec.model_validate(settings)
    return rewards.build([term], device=torch.device("cpu"), dtype=torch.float32)  # type: ignore[list-item]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def reward(request: pytest.FixtureRequest, tiny_sources: dict[str, dict[str, Any]]) -> Composite:
    name, source = request.param
    return build(name, source, tiny_sources)


@pytest.fixture(scope="module", params=SMOOTH, ids="-".join)
def differentiable(
    request: pytest.FixtureRequest, tiny_sources: dict[str, dict[str, Any]]
) -> Composite:
    name, source = request.param
    return build(name, source, tiny_sources)


Pictures = Callable[..., Tensor]


def gradient(reward: Composite, images: Tensor, *, exact: bool = False) -> Tensor:
    images = images.clone().requires_grad_()
    total = reward.score(images, PROMPTS[: len(images)], exact=exact).sum()
    return torch.autograd.grad(total, images)[0]


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("exact", [False, True])
def test_scores_are_finite_float32_per_sample(
    reward: Composite, pictures: Pictures, size: tuple[int, int], *, exact: bool
) -> None:
    scores = reward.score(pictures(3, *size), PROMPTS, exact=exact)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert len(set(scores.tolist())) == 3


def test_half_precision_images_are_scored_in_float32(reward: Composite, pictures: Pictures) -> None:
    images = pictures(2, 64, 64).bfloat16()
    scores = reward.score(images, PROMPTS[:2])
    assert scores.dtype == torch.float32
    assert torch.equal(scores, reward.score(images.float(), PROMPTS[:2]))


def test_a_batch_scores_as_its_images_alone(reward: Composite, pictures: Pictures) -> None:
    images = pictures(3, 64, 64)
    together = reward.score(images, PROMPTS)
    alone = [
        reward.score(images[i : i + 1], [prompt]).squeeze(0) for i, prompt in enumerate(PROMPTS)
    ]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-6)


def test_gradient_is_the_slope_along_a_random_direction(
    differentiable: Composite, pictures: Pictures
) -> None:
    images = pictures(3, 64, 64)
    slopes = gradient(differentiable, images)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(5)).sign()
    # A quarter uphill, so that the slope stands above the rounding of float32 scores.
    uphill = torch.rand(images.shape, generator=torch.Generator().manual_seed(6)) < 0.25
    direction = torch.where(uphill, slopes.sign(), direction)
    step = 3e-4
    ahead, behind = (
        differentiable.score(images + sign * step * direction, PROMPTS).double().sum()
        for sign in (1, -1)
    )
    slope = (ahead - behind).item() / (2 * step)
    assert (slopes * direction).sum().item() == pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize("exact", [False, True])
def test_every_pixel_is_reached(
    differentiable: Composite, pictures: Pictures, *, exact: bool
) -> None:
    assert (gradient(differentiable, pictures(2, 96, 96), exact=exact).abs().sum(dim=1) > 0).all()


def test_no_gradient_between_the_images_of_a_batch(
    differentiable: Composite, pictures: Pictures
) -> None:
    images = pictures(2, 64, 64).requires_grad_()
    first = differentiable.score(images, PROMPTS[:2])[0]
    (slope,) = torch.autograd.grad(first, images)
    assert slope[0].abs().max() > 0
    assert slope[1].abs().max() == 0


def test_thirty_steps_of_ascent_raise_it(differentiable: Composite, pictures: Pictures) -> None:
    images = pictures(1, 64, 64)
    before = differentiable.score(images, PROMPTS[:1])
    for _ in range(30):
        slope = gradient(differentiable, images)
        images = (images + 0.01 * slope / slope.abs().amax()).clamp(0, 1)
    assert (differentiable.score(images, PROMPTS[:1]) > before).all()
