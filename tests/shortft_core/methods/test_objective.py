"""From latents to the loss: clamp, crop and threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.methods.objective import Objective, random_crop, straight_through_clamp
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.rewards import Composite

Build = Callable[..., Backpropagation]
LoadTiny = Callable[..., StableDiffusion]


class Brightness:
    name = "brightness"

    def __init__(self) -> None:
        self.seen = torch.empty(0)

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        self.seen = images.detach()
        return images.mean(dim=(1, 2, 3))


def test_the_clamp_keeps_values_in_range_and_the_gradient_everywhere() -> None:
    images = torch.tensor([-0.5, 0.25, 1.5], dtype=torch.float64, requires_grad=True)
    clamped = straight_through_clamp(images)
    assert clamped.tolist() == [0.0, 0.25, 1.0]
    clamped.square().sum().backward()
    assert images.grad is not None
    # d(y^2)/dy at the clamped value: a saturated pixel learns what it looks like.
    assert images.grad.tolist() == [0.0, 0.5, 2.0]


def test_without_margin_nothing_is_cropped() -> None:
    images = torch.rand(2, 3, 16, 16)
    assert random_crop(images, (1, 2), 0.0) is images


def test_a_crop_is_a_window_that_follows_from_the_seed() -> None:
    pixels = torch.arange(16 * 16, dtype=torch.float64).reshape(1, 1, 16, 16)
    corners = set()
    for seed in range(400):
        window = random_crop(pixels, (seed,), 0.25)[0, 0]
        assert window.shape == (12, 12)
        top, left = divmod(int(window[0, 0].item()), 16)
        assert torch.equal(window, pixels[0, 0, top : top + 12, left : left + 12])
        assert torch.equal(window, random_crop(pixels, (seed,), 0.25)[0, 0])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(5) for left in range(5)}


def test_each_image_has_its_own_window() -> None:
    one = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    together = random_crop(one.expand(3, -1, -1, -1), (1, 2, 3), 0.25)
    for image, seed in zip(together, (1, 2, 3), strict=True):
        assert torch.equal(image, random_crop(one, (seed,), 0.25)[0])
    assert not torch.equal(together[0], together[1])


def test_the_reward_sees_cropped_images_in_range(load_tiny: LoadTiny) -> None:
    model, reward = load_tiny(double=True), Brightness()
    model.vae.decoder.conv_out.weight.data *= 50
    objective = Objective(model=model, reward=Composite([(reward, 2.0)]), crop_margin=0.25)
    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64).requires_grad_()
    verdict = objective(latents, ("a", "b"), (1, 2))
    assert reward.seen.shape == (2, 3, 12, 12)
    assert reward.seen.min() == 0
    assert reward.seen.max() == 1
    scores = reward.seen.mean(dim=(1, 2, 3))
    torch.testing.assert_close(verdict.reward, 2 * scores)
    torch.testing.assert_close(verdict.terms["brightness"], scores)
    assert verdict.loss.item() == pytest.approx(-2 * scores.mean().item())
    assert not verdict.reward.requires_grad
    verdict.loss.backward()
    assert latents.grad is not None


@pytest.mark.parametrize(("threshold", "loss"), [(None, -0.5), (0.5, 0.15), (0.1, 0.0)])
def test_the_loss_ends_at_the_threshold(
    load_tiny: LoadTiny, threshold: float | None, loss: float
) -> None:
    objective = Objective(
        model=load_tiny(), reward=Composite([(Brightness(), 1.0)]), threshold=threshold
    )
    assert objective._loss(torch.tensor([0.2, 0.8])).item() == pytest.approx(loss)


def test_the_safe_preset_leashes_every_method(build: Build, batch: Batch) -> None:
    safe = build("draft_k", preset="safe")
    assert (safe.leash_weight, safe.objective.crop_margin) == (0.1, 1 / 64)
    assert safe.objective.threshold is None, "`auto` is drawn from the base model by the trainer"
    paper = build("draft_k")
    assert (paper.leash_weight, paper.objective.crop_margin) == (0.0, 0.0)
    assert set(safe.loss(batch).statistics) == {"leash"}
    assert paper.loss(batch).statistics == {}
