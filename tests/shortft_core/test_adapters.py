"""The LoRA bank: what it wraps, what acts, what trains, and that it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shortft_core.adapters import AdapterBank
from shortft_core.errors import ArtifactError, UserError
from shortft_core.models.stable_diffusion import StableDiffusion

LoadTiny = Callable[..., StableDiffusion]


def call(model: StableDiffusion) -> Tensor:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    latents = latents.to(
        torch.promote_types(next(model.denoiser.parameters()).dtype, latents.dtype)
    )
    return model.predict_noise(latents, 501, model.encode_prompts(["a red circle", "a"]), 1.0)


def randomize(bank: AdapterBank, *branches: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for branch in branches:
        for weight in bank.parameters(branch):
            weight.data.normal_(0, 0.3, generator=generator)


def test_sd15_at_rank_128_has_the_papers_size() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
        bank = AdapterBank(unet, branches=1, rank=128)
    trained = sum(weight.numel() for weight in bank.parameters(1))
    assert (len(bank.layers), trained) == (160, 47_874_048)


def test_a_new_bank_changes_nothing(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    before = call(model)
    bank = AdapterBank(model.denoiser, branches=2, rank=4)
    with bank.stack((1, 2)):
        assert torch.equal(call(model), before)


def test_a_stack_is_the_sum_of_its_branches(load_tiny: LoadTiny) -> None:
    model = load_tiny(double=True)
    bank = AdapterBank(model.denoiser, branches=3, rank=2)
    randomize(bank, 1, 2, 3)
    layer = next(iter(bank.layers.values()))
    x = torch.randn(5, layer.base.in_features, dtype=torch.float64)
    with bank.stack((1, 3)):
        stacked = layer(x)
    expected = layer.base(x)
    for index in (0, 2):
        expected = expected + x @ layer.down[index].double().T @ layer.up[index].double().T
    torch.testing.assert_close(stacked, expected, rtol=1e-12, atol=1e-12)


@given(st.permutations(range(1, 6)), st.integers(0, 5), st.floats(-2, 2))
def test_any_branches_in_any_order_add_up(order: list[int], count: int, scale: float) -> None:
    denoiser = nn.ModuleDict({"to_q": nn.Linear(6, 4, dtype=torch.float64)})
    bank = AdapterBank(denoiser, branches=5, rank=2)
    randomize(bank, *range(1, 6))
    bank.set_scale(scale)
    layer, stack = bank.layers["to_q"], order[:count]
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = layer.base(x)
    for branch in stack:
        down, up = bank.weights(branch)["to_q"]
        expected = expected + scale * x @ down.double().T @ up.double().T
    with bank.stack(stack):
        torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_a_block_inside_a_block_gives_its_stack_back(load_tiny: LoadTiny) -> None:
    bank = AdapterBank(load_tiny().denoiser, branches=3, rank=2)
    seen = []
    with bank.stack((1, 2), (1,)):
        with bank.stack((3,)):
            seen.append(bank.active)
        seen.append(bank.active)
        assert {layer.switch.detached for layer in bank.layers.values()} == {(1,)}
    assert [*seen, bank.active] == [(3,), (1, 2), ()]


def test_nothing_acts_outside_the_block_even_after_an_error(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    before = call(model)
    bank = AdapterBank(model.denoiser, branches=1, rank=4)
    randomize(bank, 1)
    with bank.stack((1,)):
        assert not torch.equal(call(model), before)
    with pytest.raises(IndexError), bank.stack((7,)):
        call(model)
    assert torch.equal(call(model), before)


def test_scale_zero_is_the_base_model(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    before = call(model)
    bank = AdapterBank(model.denoiser, branches=1, rank=4)
    randomize(bank, 1)
    bank.set_scale(0.0)
    with bank.stack((1,)):
        torch.testing.assert_close(call(model), before, rtol=0, atol=0)


def test_gradients_reach_exactly_the_trained_branches(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    bank = AdapterBank(model.denoiser, branches=3, rank=2)
    randomize(bank, 1, 2, 3)
    bank.train_only((2,))
    with bank.stack((1, 2)):
        call(model).square().mean().backward()
    norms = {
        branch: [p.grad is not None and p.grad.norm().item() > 0 for p in bank.parameters(branch)]
        for branch in (1, 2, 3)
    }
    assert all(norms[2])
    assert not any(norms[1] + norms[3])


def test_detached_branches_act_and_do_not_learn(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    bank = AdapterBank(model.denoiser, branches=2, rank=2)
    randomize(bank, 1, 2)
    bank.train_only((1, 2))
    with bank.stack((1, 2)):
        whole = call(model)
    with bank.stack((1, 2), detached=(1,)):
        detached = call(model)
        detached.square().mean().backward()
    assert torch.equal(whole, detached)
    assert all(p.grad is None for p in bank.parameters(1))
    assert all(p.grad is not None and p.grad.norm() > 0 for p in bank.parameters(2))


def test_gradients_equal_finite_differences(load_tiny: LoadTiny) -> None:
    model = load_tiny(double=True)
    bank = AdapterBank(model.denoiser, branches=2, rank=2)
    randomize(bank, 1, 2)
    bank.train_only((1, 2))
    direction = {}
    generator = torch.Generator().manual_seed(2)
    for branch in (1, 2):
        for weight in bank.parameters(branch):
            weight.data = weight.data.double()
            direction[weight] = torch.randn(weight.shape, generator=generator).double()

    def loss() -> Tensor:
        with bank.stack((1, 2)):
            return call(model).square().mean()

    loss().backward()
    expected = sum((w.grad * d).sum() for w, d in direction.items() if w.grad is not None)
    step, sides = 1e-6, []
    for sign in (1, -1):
        for weight, change in direction.items():
            weight.data += sign * step * change
        sides.append(loss().item())
        for weight, change in direction.items():
            weight.data -= sign * step * change
    assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("rank", [0, 9])
def test_a_rank_that_a_layer_cannot_hold_is_refused(load_tiny: LoadTiny, rank: int) -> None:
    denoiser = load_tiny().denoiser
    names = [name for name, _ in denoiser.named_modules()]
    with pytest.raises(UserError, match=r"transformer_blocks.*8 wide\. Use 1 to 8") as caught:
        AdapterBank(denoiser, branches=1, rank=rank)
    assert caught.value.field == "method.rank"
    assert [name for name, _ in denoiser.named_modules()] == names
    assert AdapterBank(denoiser, branches=1, rank=8).rank == 8


def test_branches_switched_inside_one_graph_keep_their_gradients(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    bank = AdapterBank(model.denoiser, branches=2, rank=2)
    randomize(bank, 1, 2)
    bank.train_only((1, 2))
    with bank.stack((1,)):
        first = call(model).square().mean()
    with bank.stack((2,)):
        second = call(model).square().mean()
    (first + second).backward()
    for branch in (1, 2):
        assert all(p.grad is not None and p.grad.norm() > 0 for p in bank.parameters(branch))


def test_branch_weights_stay_fp32_beside_a_half_precision_base(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    model.denoiser.bfloat16()
    bank = AdapterBank(model.denoiser, branches=1, rank=2)
    assert {p.dtype for p in bank.parameters(1)} == {torch.float32}
    with bank.stack((1,)):
        assert call(model).dtype == torch.float32


def test_detaching_restores_the_denoiser_bit_for_bit(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    names = [name for name, _ in model.denoiser.named_parameters()]
    before = call(model)
    bank = AdapterBank(model.denoiser, branches=1, rank=2)
    with pytest.raises(ArtifactError, match="another bank"):
        AdapterBank(model.denoiser, branches=1, rank=2)
    bank.detach()
    assert [name for name, _ in model.denoiser.named_parameters()] == names
    assert torch.equal(call(model), before)


def test_weights_of_another_shape_are_refused(load_tiny: LoadTiny) -> None:
    bank = AdapterBank(load_tiny().denoiser, branches=1, rank=2)
    other = AdapterBank(load_tiny().denoiser, branches=1, rank=4)
    with pytest.raises(ArtifactError, match="another shape"):
        bank.load_weights(1, other.weights(1))
    with pytest.raises(ArtifactError, match="does not fit"):
        bank.load_weights(1, {"elsewhere": (torch.zeros(2, 2), torch.zeros(2, 2))})
