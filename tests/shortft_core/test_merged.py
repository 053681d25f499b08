"""Merged sets equal the unfused bank, leave the base alone, and never drift."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shortft_core import models
from shortft_core.adapters import AdapterBank
from shortft_core.denoise import denoise
from shortft_core.errors import DivergedError
from shortft_core.merged import MergedStacks, serving_stacks, stacks_of
from shortft_core.models import DiffusionModel
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.schedule import base_plan, inference_plan
from shortft_core.spec import Source

LoadTiny = Callable[..., StableDiffusion]
STACKS = ((1,), (1, 2), (1, 2, 3))


def banked(model: DiffusionModel, *, branches: int = 3, strength: float = 0.3) -> AdapterBank:
    bank = AdapterBank(model.denoiser, branches=branches, rank=4)
    generator = torch.Generator().manual_seed(1)
    for branch in range(1, branches + 1):
        for weight in bank.parameters(branch):
            weight.data.normal_(0, strength, generator=generator)
    bank.train_only(())
    return bank


@pytest.fixture
def bank(load_tiny: LoadTiny) -> AdapterBank:
    return banked(load_tiny())


def base_weights(bank: AdapterBank) -> list[Tensor]:
    return [layer.base.weight for layer in bank.layers.values()]


@pytest.fixture
def pristine(bank: AdapterBank) -> Iterator[list[Tensor]]:
    """Copies of the base weights; whatever a test does, they are the same bits afterwards."""
    copies = [weight.clone() for weight in base_weights(bank)]
    pointers = [weight.data_ptr() for weight in base_weights(bank)]
    yield copies
    assert [weight.data_ptr() for weight in base_weights(bank)] == pointers
    assert all(
        torch.equal(weight, copy) for weight, copy in zip(base_weights(bank), copies, strict=True)
    )


def test_the_bundled_models_chain_equals_the_unfused_one() -> None:
    """All 50 steps of `shapes` in fp32, with branches that change the image."""
    model = models.load(Source(name="shapes"), device=torch.device("cpu"), dtype=torch.float32)
    plan = inference_plan(50, 4)
    bank = banked(model, branches=4, strength=0.08)
    stacks = MergedStacks(bank, stacks_of(plan))

    def latents(stacks: AdapterBank | MergedStacks | None, steps: int = 50) -> Tensor:
        with torch.no_grad():
            return denoise(
                plan[:steps], ["a red circle"], [5], model=model, bank=stacks, guidance_scale=3.0
            )

    assert (latents(bank) - latents(stacks)).abs().max() < 1e-4
    # One segment is enough to see that a branch acts.
    assert (latents(stacks, steps=12) - latents(None, steps=12)).abs().max() > 0.1


def test_a_set_is_the_sum_of_its_stack(bank: AdapterBank, pristine: list[Tensor]) -> None:
    bank.set_scale(0.5)
    merged = MergedStacks(bank, STACKS)
    name, layer = next(iter(bank.layers.items()))
    expected = pristine[0].double()
    for branch in (1, 2):
        down, up = bank.weights(branch)[name]
        expected = expected + 0.5 * up.double() @ down.double()
    with merged.stack((1, 2)):
        torch.testing.assert_close(layer.base.weight.double(), expected, rtol=0, atol=1e-6)


def test_a_thousand_switches_leave_every_bit(bank: AdapterBank, pristine: list[Tensor]) -> None:
    merged = MergedStacks(bank, STACKS)
    first = [merged_weights(merged, bank, stack) for stack in STACKS]
    for number in range(1000):
        with merged.stack(STACKS[number % 3]):
            pass
    again = [merged_weights(merged, bank, stack) for stack in STACKS]
    for ours, theirs in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def merged_weights(merged: MergedStacks, bank: AdapterBank, stack: tuple[int, ...]) -> list[Tensor]:
    with merged.stack(stack):
        return [weight.clone() for weight in base_weights(bank)]


@given(st.lists(st.sampled_from((*STACKS, ())), max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_nesting_gives_back_what_acted_before(stacks: list[tuple[int, ...]]) -> None:
    layer = torch.nn.ModuleDict({"to_q": torch.nn.Linear(4, 4)})
    bank = AdapterBank(layer, branches=3, rank=2)
    for branch in (1, 2, 3):
        torch.nn.init.constant_(bank.parameters(branch)[1], branch)
    bank.train_only(())
    weight = bank.layers["to_q"].base.weight
    merged = MergedStacks(bank, STACKS)

    def nest(rest: list[tuple[int, ...]]) -> None:
        before = weight.data_ptr()
        if rest:
            with merged.stack(rest[0]):
                nest(rest[1:])
        assert weight.data_ptr() == before

    nest(stacks)


def test_a_held_chain_swaps_only_where_its_stack_changes(
    bank: AdapterBank, pristine: list[Tensor]
) -> None:
    merged = MergedStacks(bank, STACKS)
    first = base_weights(bank)[0]
    pointers = {}
    for stack in (*STACKS, ()):
        with merged.stack(stack):
            pointers[stack] = first.data_ptr()
    assert len(set(pointers.values())) == 4
    with merged.held():
        for stack in ((1,), (1,), (), (1, 2), ()):
            with merged.stack(stack):
                assert first.data_ptr() == pointers[stack]
                with merged.stack((1, 2, 3)):
                    assert first.data_ptr() == pointers[(1, 2, 3)]
                assert first.data_ptr() == pointers[stack]
            # Between two steps nothing runs the denoiser, so its weights may wait.
            assert first.data_ptr() == pointers[stack]
    assert first.data_ptr() == pointers[()]
    with pytest.raises(TypeError, match="missing"), merged.held(), merged.stack((1,)):
        bank.denoiser(torch.zeros(1))


def test_the_base_returns_after_an_error(bank: AdapterBank, pristine: list[Tensor]) -> None:
    merged = MergedStacks(bank, STACKS)
    with pytest.raises(TypeError, match="missing"), merged.stack((1, 2)):
        bank.denoiser(torch.zeros(1))
    with pytest.raises(ValueError, match=r"\(2,\) was not merged"), merged.stack((2,)):
        pass


def test_sets_are_computed_in_fp32_and_rounded_once(load_tiny: LoadTiny) -> None:
    """In fp16 each of two half-ulp increments alone vanishes; their fp32 sum does not."""
    model = load_tiny()
    model.denoiser.half()
    bank = AdapterBank(model.denoiser, branches=2, rank=1)
    bank.train_only(())
    layer = next(iter(bank.layers.values()))
    layer.base.weight.data.fill_(1.0)
    for branch in (0, 1):
        layer.down[branch].data.fill_(1.0)
        layer.up[branch].data.fill_(2.0**-12)
    merged = MergedStacks(bank, [(1,), (1, 2)])
    with merged.stack((1,)):
        assert layer.base.weight.dtype == torch.float16
        halves = layer.base.weight.clone()
    with merged.stack((1, 2)):
        both = layer.base.weight.clone()
    assert halves.unique().tolist() == [1.0]
    # 2^-11 is a tie that rounds to even in fp16; a little more shows that nothing was lost.
    assert both.unique().tolist() == [1.0]
    layer.up[1].data.fill_(2.0**-12 * 1.25)
    with MergedStacks(bank, [(1, 2)]).stack((1, 2)):
        assert layer.base.weight.unique().tolist() == [1.0 + 2.0**-10]


def test_a_set_that_is_not_finite_is_refused(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    model.denoiser.half()
    bank = banked(model)
    next(iter(bank.layers.values())).up[0].data.fill_(1e6)
    with pytest.raises(DivergedError, match=r"branches \(1,\) make .* not finite in torch.float16"):
        MergedStacks(bank, STACKS)


def test_no_branch_learns_through_merged_weights(bank: AdapterBank) -> None:
    merged = MergedStacks(bank, STACKS)
    bank.train_only((2,))
    with pytest.raises(ValueError, match="carry no gradient"), merged.stack((1, 2)):
        pass
    with merged.stack((1, 2), detached=(2,)), torch.no_grad(), merged.stack((1, 2)):
        pass


def test_two_kinds_of_stacks_do_not_mix(bank: AdapterBank) -> None:
    merged = MergedStacks(bank, STACKS)
    with bank.stack((1,)), pytest.raises(ValueError, match="leave it first"), merged.stack((1,)):
        pass


def test_stacks_of_a_chain_are_distinct() -> None:
    assert stacks_of(inference_plan(50, 4)) == ((1,), (), (1, 2), (1, 2, 3), (1, 2, 3, 4))
    assert stacks_of(base_plan(50)) == ((),)


def test_bf16_weights_are_served_unfused(load_tiny: LoadTiny) -> None:
    model = load_tiny()
    plan = tuple(replace(e, branches=(1,)) for e in base_plan(4))
    assert isinstance(serving_stacks(banked(model), plan), MergedStacks)
    half = load_tiny()
    half.denoiser.bfloat16()
    bank = banked(half)
    assert serving_stacks(bank, plan) is bank
