"""Moments of gradients whose mean and variance are known, and gradients of the real model."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import variance
from benchmarks.updates import build, job
from shortft_core.methods import Batch
from shortft_core.sampling import derive_seed
from shortft_core.spec import DraftK


def test_moments_of_normal_gradients() -> None:
    prompts, seeds, size, spread = 2, 4000, 5, 3.0
    means = torch.tensor([[1.0, 0, 0, 0, 0], [0, 2.0, 0, 0, 0]])
    noise = torch.randn(prompts, seeds, size, generator=torch.Generator().manual_seed(0))
    found = variance.moments(means[:, None] + spread * noise)
    assert found.variance == pytest.approx(size * spread**2, rel=0.03)
    assert found.relative_variance == pytest.approx(2 * size * spread**2 / (1 + 4), rel=0.05)
    assert found.means == pytest.approx(means.double(), abs=0.2)


def test_two_gradients_by_hand() -> None:
    gradients = torch.tensor([[[3.0, 0.0], [1.0, 0.0]]])
    found = variance.moments(gradients)
    assert (found.norm, found.variance) == (2.0, 2.0)
    # The mean is 2: its square 4 holds V / n = 1 of noise.
    assert found.relative_variance == pytest.approx(2 / 3)


def test_noise_without_a_mean_has_no_finite_relative_variance() -> None:
    assert variance.moments(torch.tensor([[[1.0], [-1.0]]])).relative_variance == math.inf


def test_cosines_of_single_gradients_and_of_means() -> None:
    reference = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    found = torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])
    single, mean = variance.cosines(found, reference)
    assert single == pytest.approx(math.sqrt(0.5))
    assert mean == pytest.approx(1.0)


def test_the_gradient_is_that_of_the_loss() -> None:
    method = build(job(DraftK(steps=2, gradient_steps=2, rank=2, batch_size=1, updates=1)))
    weights = method.bank.parameters(variance.BRANCH)
    # A zero up-projection would hide half of the gradient.
    for index, weight in enumerate(weights):
        weight.data.add_(
            torch.randn(weight.shape, generator=torch.Generator().manual_seed(index)) * 0.02
        )
    found = variance.gradient(method, "a red circle", 5)
    direction = found / found.norm()
    batch = Batch(("a red circle",), (5,), derive_seed("variance", "a red circle", 5))
    losses = []
    for step in (1e-2, -2e-2):
        torch.nn.utils.vector_to_parameters(
            torch.nn.utils.parameters_to_vector(weights).detach() + step * direction, weights
        )
        losses.append(method.loss(batch).loss.item())
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(found.norm().item(), rel=0.02)
