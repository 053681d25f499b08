"""What ShortFT's gradient is and is not, in every stage and under every reading of the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.sampling import ddim_step

Build = Callable[..., Backpropagation]
Gradients = Callable[..., dict[int, list[Tensor]]]
Slopes = Callable[..., list[tuple[float, float]]]
Calls = Callable[[nn.Module], list[tuple[bool, int]]]


def norms(found: dict[int, list[Tensor]]) -> dict[int, float]:
    return {b: sum(grad.norm().item() for grad in grads) for b, grads in found.items()}


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_each_stage_has_gradient_in_its_own_branches_and_later_ones_are_exact(
    build: Build, gradients: Gradients, slopes: Slopes, stage: int
) -> None:
    method = build("shortft")
    method.enter_stage(stage)
    found = norms(gradients(method))
    assert method.trained_branches() == tuple(found) == tuple(range(stage, 5))
    assert all(norm > 0 for norm in found.values())
    later = range(max(stage, 2), 5)
    for autograd, difference in slopes(method, *map(method.bank.parameters, later)):
        assert autograd == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("attached", [1, 2, 3])
def test_branch_one_is_exact_if_all_of_its_segment_is_attached(
    build: Build, slopes: Slopes, attached: int
) -> None:
    """Thirteen steps in four segments: segment 1 has three."""
    method = build("shortft", first_segment_grad_steps=attached)
    ((autograd, difference),) = slopes(method, method.bank.parameters(1))
    if attached == 3:
        assert autograd == pytest.approx(difference, rel=1e-6)
    else:
        assert abs(autograd - difference) > 1e-2 * abs(difference)


def test_the_reward_reaches_branch_one_through_the_shortcuts_input(
    build: Build, gradients: Gradients
) -> None:
    method = build("shortft")
    plan = method.training_plan()
    blocked = tuple(replace(e, detach_input=e.denoiser == "shortcut") for e in plan)
    ours, theirs = gradients(method), gradients(method, blocked)
    assert same(ours[4], theirs[4])
    assert [branch for branch in ours if not same(ours[branch], theirs[branch])] == [1, 2, 3]


def test_lower_branches_act_without_learning(
    build: Build, gradients: Gradients, batch: Batch
) -> None:
    plain, detached = build("shortft"), build("shortft", detach_lower_branches=True)
    assert torch.equal(plain.loss(batch).loss, detached.loss(batch).loss)
    ours, theirs = gradients(detached), gradients(plain)
    assert same(ours[4], theirs[4])
    assert [branch for branch in ours if not same(ours[branch], theirs[branch])] == [1, 2, 3]
    # What is left of branch 3 is what its own last step contributes: branch 4's step is cut off.
    alone = tuple(
        replace(e, detached=(1, 2, 3)) if e.branches == (1, 2, 3, 4) else e
        for e in plain.training_plan()
    )
    assert same(gradients(plain, alone)[3], ours[3])


def test_a_scope_of_the_whole_segment_acts_on_all_of_it(build: Build, batch: Batch) -> None:
    method = build("shortft", scope="segment")
    served = [e.branches for e in method.inference_plan]
    lengths = {(1,): 3, (1, 2): 3, (1, 2, 3): 3, (1, 2, 3, 4): 4}
    assert served == [stack for stack, length in lengths.items() for _ in range(length)]
    method.enter_stage(4)
    with torch.no_grad():
        short = build("shortft").denoising
        args = (batch.prompts, batch.seeds)
        start = short.start(batch.seeds)
        wide = method.denoising.run(method.inference_plan, start, *args)
        assert torch.equal(method.denoising.run(method.training_plan(), start, *args), wide)
        assert not torch.equal(short.run(build("shortft").inference_plan, start, *args), wide)


def test_independent_branches_act_alone(build: Build, gradients: Gradients, slopes: Slopes) -> None:
    method = build("shortft", stacking="independent")
    stacks = [e.branches for e in method.inference_plan if e.branches]
    assert stacks == [(1,)] * 3 + [(2,), (3,), (4,)]
    assert set(gradients(method)) == {1, 2, 3, 4}
    for autograd, difference in slopes(method, *map(method.bank.parameters, (2, 3, 4))):
        assert autograd == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize(("ablation", "steps"), [("no_tlora", 6), ("no_tlora_all_steps", 13)])
def test_without_timestep_aware_lora_one_branch_serves(
    build: Build, gradients: Gradients, ablation: str, steps: int
) -> None:
    method = build("shortft", ablation=ablation)
    assert method.bank.branches == 1
    assert [e.branches for e in method.inference_plan].count((1,)) == steps
    for stage in (1, 2, 3, 4):
        method.enter_stage(stage)
        assert norms(gradients(method))[1] > 0


def test_one_shared_branch_is_exact_where_all_of_its_steps_are_attached(
    build: Build, slopes: Slopes
) -> None:
    method = build("shortft", ablation="no_tlora", first_segment_grad_steps=3)
    ((autograd, difference),) = slopes(method, method.bank.parameters(1))
    assert autograd == pytest.approx(difference, rel=1e-6)


def test_without_progression_stage_one_is_all(build: Build, batch: Batch) -> None:
    method, full = build("shortft", ablation="no_progressive"), build("shortft")
    assert method.stage_shares == (1.0,)
    assert method.trained_branches() == (1, 2, 3, 4)
    assert method.training_plan() == full.training_plan()
    assert method.inference_plan == full.inference_plan
    assert torch.equal(method.loss(batch).loss, full.loss(batch).loss)


def test_a_naive_jump_is_one_guided_step_of_the_base_model(
    build: Build, calls: Calls, batch: Batch
) -> None:
    method = build("shortft", ablation="naive_jump")
    jump = next(e for e in method.training_plan() if e.denoiser == "shortcut")
    assert jump.timestep - jump.next_timestep > 1000 // 13
    start = method.denoising.start(batch.seeds)
    conditioning = method.model.encode_prompts(batch.prompts)
    seen = calls(method.model.denoiser)
    jumped = method.denoising.run((jump,), start, batch.prompts, batch.seeds)
    assert seen == [(True, 4)]
    method.bank.detach()
    noise = method.model.predict_noise(start, jump.timestep, conditioning, 2.0)
    by_hand = ddim_step(
        start, noise, jump.timestep, jump.next_timestep, method.model.alphas_cumprod
    )
    assert torch.equal(jumped, by_hand)


def test_the_shortcut_may_be_guided_on_its_own(build: Build, calls: Calls, batch: Batch) -> None:
    plain, guided = build("shortft"), build("shortft", shortcut_guidance=1.5)
    assert guided.denoising.shortcut is not None
    seen = calls(guided.denoising.shortcut.model.denoiser)
    assert not torch.equal(guided.loss(batch).loss, plain.loss(batch).loss)
    assert seen == [(True, 4)] * 3


def test_a_shortcut_carries_no_branch(build: Build, few_step: Path, batch: Batch) -> None:
    """It stands for steps without any: filling the branches leaves its noise as it was."""
    noises = []
    for zero in (True, False):
        method = build("shortft", zero=zero, shortcut={"path": str(few_step)})
        jump = next(e for e in method.training_plan() if e.denoiser == "shortcut")
        conditioning = method.model.encode_prompts(batch.prompts)
        start = method.denoising.start(batch.seeds)
        noises.append(method.denoising.predict_noise(start, jump, conditioning))
        plain = method.model.predict_noise(start, jump.timestep, conditioning, 1.0)
        assert not torch.equal(noises[-1], plain), "the shortcut is another denoiser than the base"
    assert torch.equal(*noises)
