"""Direct tuning of a few-step model: all of its calls attached, none guided."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from shortft_core import catalog, methods, models
from shortft_core.errors import PlanError
from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.rewards import Composite
from shortft_core.spec import Direct, Source

Build = Callable[..., Backpropagation]
Slopes = Callable[..., list[tuple[float, float]]]
Calls = Callable[[nn.Module], list[tuple[bool, int]]]


def test_four_attached_calls_at_single_batch_size(build: Build, calls: Calls, batch: Batch) -> None:
    method = build("direct", guidance_scale=1.0)
    seen = calls(method.model.denoiser)
    assert method.loss(batch).evaluations == (4, 0)
    assert seen == [(True, 2)] * 4


def test_its_chain_is_the_trailing_one_of_the_few_step_model(build: Build) -> None:
    method = build("direct", guidance_scale=1.0)
    assert [e.timestep for e in method.inference_plan] == [999, 749, 499, 249]
    assert {e.branches for e in method.inference_plan} == {(1,)}


def test_its_gradient_is_exact(build: Build, slopes: Slopes) -> None:
    method = build("direct", guidance_scale=1.0)
    ((autograd, difference),) = slopes(method, method.bank.parameters(1))
    assert autograd == pytest.approx(difference, rel=1e-6)


def test_the_bank_sits_on_the_few_step_model(build: Build, batch: Batch) -> None:
    method, base = build("direct", guidance_scale=1.0, zero=True), build("draft_k", zero=True)
    assert method.bank.denoiser is method.model.denoiser
    assert method.model.fingerprint != base.model.fingerprint
    noises = []
    for tuned in (method, base):
        start = tuned.denoising.start(batch.seeds)
        conditioning = tuned.model.encode_prompts(batch.prompts)
        noises.append(tuned.model.predict_noise(start, 499, conditioning, 1.0))
    assert not torch.equal(*noises)


def test_timesteps_that_it_was_not_distilled_for_are_refused() -> None:
    model = models.load(Source(name="shapes"), device=torch.device("cpu"), dtype=torch.float32)
    method = catalog.resolve_method(Direct(steps=30), Source(name="shapes"))
    with pytest.raises(PlanError, match="not distilled for the jump 958 -> 727") as caught:
        methods.build(method, model=model, reward=Composite([]), seed=0)
    assert caught.value.field == "method.few_step"
