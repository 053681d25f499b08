"""A laboratory for gradients: tiny methods in float64 with branches that are not zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from shortft_core import methods
from shortft_core.lora_files import write_kohya
from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.rewards import Composite
from shortft_core.schedule import Plan
from shortft_core.spec import AnyMethod
from tests.shortft_core.conftest import fresh_copy

Weights = Sequence[nn.Parameter]
BATCH = Batch(prompts=("a red circle", "a blue star"), seeds=(5, 6))
_SPECS: TypeAdapter[AnyMethod] = TypeAdapter(AnyMethod)


class MeanSquare:
    """A smooth reward with a gradient at every pixel."""

    name = "mean_square"

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        return (images - 0.3).square().mean(dim=(1, 2, 3))


@pytest.fixture
def batch() -> Batch:
    return BATCH


@pytest.fixture(scope="session")
def loaded(tiny: StableDiffusion) -> StableDiffusion:
    """The tiny model in float64, its images inside [0, 1], where clamping is the identity."""
    loaded = fresh_copy(tiny)
    for module in (loaded.denoiser, loaded.vae, loaded.text_encoder):
        module.double()
    loaded.vae.decoder.conv_out.weight.data *= 0.1
    loaded.vae.decoder.conv_out.bias.data.zero_()
    return loaded


@pytest.fixture
def model(loaded: StableDiffusion) -> Callable[[], StableDiffusion]:
    """Fresh copies of it."""
    return lambda: fresh_copy(loaded)


@pytest.fixture(scope="session")
def few_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA that makes the tiny denoiser another one, wherever a few-step model is asked for."""
    generator = torch.Generator().manual_seed(7)
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    layers = {
        f"{block}.{layer}": (
            torch.randn(4, width, generator=generator),
            torch.randn(8, 4, generator=generator),
        )
        for layer, width in {"attn1.to_q": 8, "attn1.to_v": 8, "attn2.to_v": 16}.items()
    }
    path = tmp_path_factory.mktemp("few-step") / "few-step.safetensors"
    write_kohya(path, layers, dtype=torch.float32, header={})
    return path


@pytest.fixture
def build(model: Callable[[], StableDiffusion], few_step: Path) -> Callable[..., Backpropagation]:
    """A method on a fresh model; `zero` leaves its branches as they are made."""

    def make(type_: str, *, zero: bool = False, **options: Any) -> Backpropagation:
        # Thirteen steps in four segments: every jump lies within its quarter of the noise levels.
        steps = 13 if type_ == "shortft" else 12
        wanted = {"steps": steps, "guidance_scale": 2.0, "rank": 2, "type": type_} | options
        if type_ in {"shortft", "direct"} and wanted.get("ablation") != "naive_jump":
            wanted.setdefault(
                "shortcut" if type_ == "shortft" else "few_step", {"path": str(few_step)}
            )
        method = methods.build(
            _SPECS.validate_python(wanted),
            model=model(),
            reward=Composite([(MeanSquare(), 1.0)]),
            seed=0,
        )
        assert isinstance(method, Backpropagation)
        fill(method, zero=zero)
        return method

    return make


def fill(method: Backpropagation, *, zero: bool) -> None:
    """Branches in float64, random in both halves unless they stay at zero."""
    generator = torch.Generator().manual_seed(2)
    for branch in range(1, method.bank.branches + 1):
        for weight in method.bank.parameters(branch):
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * 0.05
            weight.data = weight.data.double() if zero else drawn


@pytest.fixture
def gradients() -> Callable[..., dict[int, list[Tensor]]]:
    """The gradient of each branch that has one, for a batch or for a chain given by hand."""

    def find(
        method: Backpropagation, plan: Plan | None = None, batch: Batch = BATCH
    ) -> dict[int, list[Tensor]]:
        method.bank.denoiser.zero_grad(set_to_none=True)
        if plan is None:
            loss = method.loss(batch).loss
        else:
            loss = method._end(batch, plan, method.denoising.start(batch.seeds)).loss
        loss.backward()
        found = {
            branch: [w.grad.clone() for w in method.bank.parameters(branch) if w.grad is not None]
            for branch in range(1, method.bank.branches + 1)
        }
        return {branch: grads for branch, grads in found.items() if grads}

    return find


@pytest.fixture
def slopes() -> Callable[..., list[tuple[float, float]]]:
    """(autograd, central difference) of the loss along a random direction of each group."""

    def find(method: Backpropagation, *groups: Weights) -> list[tuple[float, float]]:
        generator = torch.Generator().manual_seed(9)
        ways = [
            [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
            for weights in groups
        ]
        method.bank.denoiser.zero_grad(set_to_none=True)
        method.loss(BATCH).loss.backward()
        return [
            (_slope(weights, way), _difference(method, weights, way))
            for weights, way in zip(groups, ways, strict=True)
        ]

    return find


def _slope(weights: Weights, way: Sequence[Tensor]) -> float:
    pairs = zip(weights, way, strict=True)
    return sum((w.grad * d).sum().item() for w, d in pairs if w.grad is not None)


def _difference(method: Backpropagation, weights: Weights, way: Sequence[Tensor]) -> float:
    values, width = [], 1e-5
    for sign in (1, -1):
        for weight, direction in zip(weights, way, strict=True):
            weight.data += sign * width * direction
        # A value needs no graph, but the leash looks at attached calls only.
        with torch.set_grad_enabled(method.leash_weight > 0):
            values.append(method.loss(BATCH).loss.item())
        for weight, direction in zip(weights, way, strict=True):
            weight.data -= sign * width * direction
    return (values[0] - values[1]) / (2 * width)


@pytest.fixture
def calls() -> Callable[[nn.Module], list[tuple[bool, int]]]:
    """(with gradient, batch size) of every call of a denoiser from now on."""

    def watch(denoiser: nn.Module) -> list[tuple[bool, int]]:
        seen: list[tuple[bool, int]] = []
        denoiser.register_forward_pre_hook(
            lambda _, inputs: seen.append((torch.is_grad_enabled(), len(inputs[0])))
        )
        return seen

    return watch
