"""The seven traps of switching peft adapters in one graph (docs/decisions/0002): ours has none.

Where peft still falls into a trap, the test shows it, so that the bank can go when peft is mended.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shortft_core.adapters import AdapterBank
from shortft_core.lora_files import LowRank, merge_into, module_key
from shortft_core.models.stable_diffusion import StableDiffusion

LoadTiny = Callable[..., StableDiffusion]
# peft warns of the second adapter of a model, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")


@pytest.fixture
def model(load_tiny: LoadTiny) -> StableDiffusion:
    return load_tiny()


@pytest.fixture
def bank(model: StableDiffusion) -> AdapterBank:
    bank = AdapterBank(model.denoiser, branches=2, rank=2)
    generator = torch.Generator().manual_seed(1)
    for branch in (1, 2):
        for weight in bank.parameters(branch):
            weight.data.normal_(0, 0.3, generator=generator)
    bank.train_only((1, 2))
    return bank


def call(model: StableDiffusion, latents: Tensor | None = None) -> Tensor:
    if latents is None:
        latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return model.predict_noise(latents, 501, model.encode_prompts(["a red circle", "a"]), 1.0)


def gradients(bank: AdapterBank, branch: int) -> list[Tensor]:
    found = []
    for weight in bank.parameters(branch):
        assert weight.grad is not None
        found.append(weight.grad.clone())
        weight.grad = None
    return found


class TwoOfPeft(nn.Module):
    """One Linear with the adapters `a` and `b` of peft, both with weights that act."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.to_q = nn.Linear(4, 4)
        for name in ("a", "b"):
            config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
            inject_adapter_in_model(config, self, adapter_name=name)

    @property
    def layer(self) -> LoraLayer:
        assert isinstance(self.to_q, LoraLayer)
        return self.to_q

    def use(self, *names: str) -> None:
        self.layer.set_adapter(list(names))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.to_q(x)
        return found

    def weight(self, name: str) -> nn.Parameter:
        found = self.layer.lora_B[name].weight
        assert isinstance(found, nn.Parameter)
        return found


def test_1_switching_inside_a_graph_keeps_every_gradient(
    model: StableDiffusion, bank: AdapterBank
) -> None:
    with bank.stack((1,)):
        call(model).square().mean().backward()
    alone = gradients(bank, 1)
    with bank.stack((1,)):
        first = call(model).square().mean()
    with bank.stack((2,)):
        second = call(model).square().mean()
    (first + second).backward()
    torch.testing.assert_close(gradients(bank, 1), alone)


def test_1_peft_drops_the_gradient_of_what_was_switched_off() -> None:
    theirs, x = TwoOfPeft(), torch.ones(1, 4)
    theirs.use("a")
    first = theirs(x).square().sum()
    theirs.use("b")
    (first + theirs(x).square().sum()).backward()
    assert theirs.weight("a").grad is None
    assert theirs.weight("b").grad is not None


def test_2_a_frozen_branch_stays_frozen_while_it_acts(
    model: StableDiffusion, bank: AdapterBank
) -> None:
    bank.train_only((2,))
    with bank.stack((1, 2)):
        assert not any(weight.requires_grad for weight in bank.parameters(1))
        call(model).square().mean().backward()
    assert all(weight.grad is None for weight in bank.parameters(1))


def test_2_peft_marks_what_acts_as_trainable() -> None:
    theirs = TwoOfPeft()
    theirs.weight("a").requires_grad_(False)
    theirs.use("a", "b")
    assert theirs.weight("a").requires_grad


@pytest.mark.parametrize("stacks", [((1,), (2,)), ((1,), (1, 2))], ids=["disjoint", "stacked"])
def test_3_recomputing_a_call_runs_the_branches_it_ran_with(
    model: StableDiffusion, bank: AdapterBank, stacks: Sequence[tuple[int, ...]]
) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    def stacked(latents: Tensor, branches: tuple[int, ...]) -> Tensor:
        with bank.stack(branches):
            return call(model, latents)

    def chain(*, recompute: bool) -> list[Tensor]:
        x = latents
        for branches in stacks:
            x = (
                checkpoint(stacked, x, branches, use_reentrant=False)
                if recompute
                else stacked(x, branches)
            )
        x.square().mean().backward()
        return gradients(bank, 1) + gradients(bank, 2)

    torch.testing.assert_close(chain(recompute=True), chain(recompute=False), rtol=0, atol=0)


def test_3_peft_recomputes_with_what_is_active_at_backward() -> None:
    def gradient(*, recompute: bool) -> Tensor:
        theirs, x = TwoOfPeft(), torch.ones(1, 4, requires_grad=True)
        theirs.use("a")
        first = checkpoint(theirs, x, use_reentrant=False) if recompute else theirs(x)
        theirs.use("b")
        second = theirs(first)
        # The remedy for trap 1, without which `a` gets no gradient at all.
        theirs.weight("a").requires_grad_(True)
        second.square().sum().backward()
        assert x.grad is not None
        return x.grad

    assert not torch.allclose(gradient(recompute=True), gradient(recompute=False))


def test_4_a_branch_acts_on_top_of_a_merged_lora(model: StableDiffusion) -> None:
    """The merged LoRA and the branch together equal the one weight W + D + B A."""
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    fused, both = copy.deepcopy(model.denoiser), copy.deepcopy(model.denoiser)
    delta, branch = (LowRank(torch.randn(2, 8), torch.randn(8, 2), 1.0) for _ in range(2))
    merge_into(fused, {module_key(name): delta})
    bank = AdapterBank(fused, branches=1, rank=2)
    bank.layers[name].down[0].data, bank.layers[name].up[0].data = branch.down, branch.up
    linear = both.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    linear.weight.data += delta.up @ delta.down + branch.up @ branch.down
    x = torch.randn(3, 8)
    with bank.stack((1,)):
        torch.testing.assert_close(bank.layers[name](x), linear(x))


def test_4_peft_hides_what_acts_behind_what_is_merged() -> None:
    theirs, x = TwoOfPeft(), torch.ones(1, 4)
    theirs.layer.merge(adapter_names=["a"])
    theirs.use("a")
    alone = theirs(x)
    theirs.use("a", "b")
    assert torch.equal(theirs(x), alone)


def test_5_a_rollout_in_the_same_autocast_context_takes_no_gradient_away(
    model: StableDiffusion, bank: AdapterBank
) -> None:
    def found(*, rollout: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16), bank.stack((1,)):
            if rollout:
                with torch.no_grad():
                    call(model)
            loss = call(model).float().square().mean()
        loss.backward()
        return gradients(bank, 1)

    torch.testing.assert_close(found(rollout=True), found(rollout=False), rtol=0, atol=0)


def test_6_branches_beside_bf16_weights_are_fp32(load_tiny: LoadTiny) -> None:
    ours, theirs = load_tiny().denoiser.bfloat16(), load_tiny().denoiser.bfloat16()
    assert {p.dtype for p in AdapterBank(ours, branches=1, rank=2).parameters(1)} == {torch.float32}
    assert isinstance(theirs, UNet2DConditionModel)
    theirs.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    peft_dtypes = {p.dtype for name, p in theirs.named_parameters() if "lora_" in name}
    assert peft_dtypes == {torch.bfloat16}


def test_7_switching_stacks_keeps_the_scale(model: StableDiffusion, bank: AdapterBank) -> None:
    bank.set_scale(0.25)
    with bank.stack((1,)):
        before = call(model)
    with bank.stack((2,)):
        call(model)
    with bank.stack((1,)):
        assert torch.equal(call(model), before)
    assert bank.scale == 0.25


def test_7_diffusers_resets_a_scale_that_is_not_repeated(load_tiny: LoadTiny) -> None:
    theirs = load_tiny().denoiser
    assert isinstance(theirs, UNet2DConditionModel)
    for name in ("a", "b"):
        theirs.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"]), name)
    layer = next(module for module in theirs.modules() if isinstance(module, LoraLayer))
    theirs.set_adapters(["a"], weights=[0.25])
    assert layer.scaling["a"] == 0.25
    theirs.set_adapters(["a", "b"])
    assert layer.scaling["a"] == 1.0
