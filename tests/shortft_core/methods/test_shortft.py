"""ShortFT's chain as it runs: counts, bits, frozen parts, memory and the prefix pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from shortft_core.denoise import denoise
from shortft_core.methods import Batch
from shortft_core.methods.backpropagation import Backpropagation
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.schedule import Evaluation, Plan, base_plan, counts

Build = Callable[..., Backpropagation]
Gradients = Callable[..., dict[int, list[Tensor]]]
Calls = Callable[[nn.Module], list[tuple[bool, int]]]
STAGES = (1, 2, 3, 4)


def shortcut_of(method: Backpropagation) -> nn.Module:
    assert method.denoising.shortcut is not None
    return method.denoising.shortcut.model.denoiser


def without_gradient(plan: Plan) -> Plan:
    return tuple(replace(e, with_gradient=False) for e in plan)


def run(method: Backpropagation, plan: Plan, batch: Batch) -> Tensor:
    with torch.no_grad():
        start = method.denoising.start(batch.seeds)
        return method.denoising.run(plan, start, batch.prompts, batch.seeds)


@pytest.mark.parametrize(
    ("stage", "base_with", "base_without", "jumps"),
    [(1, 4, 11, 3), (2, 3, 24, 2), (3, 2, 36, 1), (4, 1, 49, 0)],
)
def test_the_denoisers_are_called_as_often_as_the_paper_says(
    build: Build,
    calls: Calls,
    batch: Batch,
    stage: int,
    base_with: int,
    base_without: int,
    jumps: int,
) -> None:
    """The SD 1.5 grid: guidance doubles the base's batch, the shortcut's calls are single."""
    method = build("shortft", steps=50)
    method.enter_stage(stage)
    base, shortcut = calls(method.model.denoiser), calls(shortcut_of(method))
    outcome = method.loss(batch)
    assert base == [(False, 4)] * base_without + [(True, 4)] * base_with
    assert shortcut == [(True, 2)] * jumps
    assert outcome.evaluations == (base_with + jumps, base_without)
    assert method.training_plan()[-1].timestep == 1


@pytest.mark.parametrize("attached", [2, 12])
def test_the_first_segment_attaches_what_is_asked(
    build: Build, calls: Calls, batch: Batch, attached: int
) -> None:
    method = build("shortft", steps=50, first_segment_grad_steps=attached)
    base = calls(method.model.denoiser)
    assert method.loss(batch).evaluations == (6 + attached, 12 - attached)
    assert [flag for flag, _ in base] == [False] * (12 - attached) + [True] * (3 + attached)


def test_new_branches_leave_the_base_chain_bit_for_bit(
    build: Build, model: Callable[[], StableDiffusion], batch: Batch
) -> None:
    method = build("shortft", zero=True)
    method.enter_stage(4)
    plain = denoise(
        base_plan(13), batch.prompts, batch.seeds, model=model(), bank=None, guidance_scale=2.0
    )
    assert torch.equal(run(method, method.training_plan(), batch), plain)


def test_the_last_stage_is_inference_bit_for_bit(build: Build, batch: Batch) -> None:
    method = build("shortft")
    method.enter_stage(4)
    served = denoise(
        method.inference_plan,
        batch.prompts,
        batch.seeds,
        model=method.model,
        bank=method.bank,
        guidance_scale=2.0,
    )
    start = method.denoising.start(batch.seeds)
    plan = method.training_plan()
    trained = method.denoising.run(plan, start, batch.prompts, batch.seeds)
    assert trained.requires_grad
    assert torch.equal(trained, served)
    method.enter_stage(1)
    assert not torch.equal(run(method, method.training_plan(), batch), served)


def spelled_out(plan: Plan, inference: Plan) -> Plan:
    """The chain with every jump replaced by the base steps that it stands for."""
    steps: list[Evaluation] = []
    for evaluation in plan:
        if evaluation.denoiser == "base":
            steps.append(evaluation)
            continue
        between = [
            e for e in inference if evaluation.next_timestep < e.timestep <= evaluation.timestep
        ]
        assert [e.branches for e in between] == [()] * len(between)
        steps.extend(between)
    return tuple(steps)


def test_with_jumps_spelled_out_every_stage_is_inference(build: Build, batch: Batch) -> None:
    method = build("shortft")
    served = run(method, method.inference_plan, batch)
    for stage in STAGES:
        method.enter_stage(stage)
        plan = spelled_out(method.training_plan(), method.inference_plan)
        assert len(plan) == 13
        assert torch.equal(run(method, plan, batch), served), stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_moves_the_trained_branches_and_nothing_else(
    build: Build, batch: Batch, stage: int
) -> None:
    method = build("shortft")
    method.enter_stage(stage)
    every = [w for branch in range(1, 5) for w in method.bank.parameters(branch)]
    optimizer = torch.optim.AdamW(every, lr=0.01, weight_decay=0.1)
    branches = {b: [w.detach().clone() for w in method.bank.parameters(b)] for b in range(1, 5)}
    shortcut = {k: v.clone() for k, v in shortcut_of(method).state_dict().items()}
    base = {name: layer.base.weight.clone() for name, layer in method.bank.layers.items()}
    method.loss(batch).loss.backward()
    optimizer.step()
    moved = {
        b: not all(map(torch.equal, before, method.bank.parameters(b)))
        for b, before in branches.items()
    }
    assert moved == {b: b >= stage for b in range(1, 5)}
    after = shortcut_of(method).state_dict()
    assert all(torch.equal(before, after[key]) for key, before in shortcut.items())
    layers = method.bank.layers
    assert all(torch.equal(before, layers[name].base.weight) for name, before in base.items())


def parts(method: Backpropagation) -> list[nn.Module]:
    assert isinstance(method.model, StableDiffusion)
    found = [method.model.denoiser, method.model.vae]
    return found if method.denoising.shortcut is None else [*found, shortcut_of(method)]


class SavedBytes:
    """Bytes that autograd keeps for the backward pass, each storage once, parameters aside."""

    def __init__(self, *modules: nn.Module) -> None:
        self.parameters = {p.untyped_storage().data_ptr() for m in modules for p in m.parameters()}
        self.kept: dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        self.kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    def measure(self, method: Backpropagation, batch: Batch) -> int:
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor):
            kept_alive = method.loss(batch).loss
        assert kept_alive.requires_grad
        found = {at: t for at, t in self.kept.items() if at not in self.parameters}
        return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def test_stage_one_keeps_less_for_the_backward_pass_than_draft_8(
    build: Build, batch: Batch
) -> None:
    """Seven attached calls, three of them single, beside eight doubled ones."""
    short, draft = build("shortft"), build("draft_k", gradient_steps=8)
    assert counts(short.training_plan())[0] == 7
    one = build("draft_k", gradient_steps=1)
    kept = {
        name: SavedBytes(*parts(method)).measure(method, batch)
        for name, method in {"shortft": short, "draft_8": draft, "draft_1": one}.items()
    }
    assert kept["draft_1"] < kept["shortft"] < 0.8 * kept["draft_8"]


def test_a_pool_spares_calls_and_changes_no_bit(
    build: Build, gradients: Gradients, batch: Batch
) -> None:
    plain, pooled = build("shortft"), build("shortft", prefix_pool=4, batch_size=2)
    for stage, (made, again) in {2: (5, 0), 3: (3, 0), 4: (4, 0)}.items():
        for method in (plain, pooled):
            method.enter_stage(stage)
        prefix = counts(plain.training_plan())[1]
        first, second = pooled.loss(batch), pooled.loss(batch)
        assert (first.evaluations[1], second.evaluations[1]) == (made, again)
        whole = plain.loss(batch)
        assert whole.evaluations[1] == prefix
        assert torch.equal(first.loss, whole.loss)
        assert torch.equal(second.loss, first.loss)
        ours, theirs = gradients(pooled), gradients(plain)
        assert ours.keys() == theirs.keys() == set(range(stage, 5))
        for branch, found in ours.items():
            assert all(map(torch.equal, found, theirs[branch])), branch


def test_a_pool_serves_each_image_its_own_prefix(build: Build, batch: Batch) -> None:
    plain, pooled = build("shortft"), build("shortft", prefix_pool=4, batch_size=2)
    other = Batch(prompts=batch.prompts, seeds=(7, 8))
    for method in (plain, pooled):
        method.enter_stage(3)
    expected = {images.seeds: plain.loss(images).loss for images in (batch, other)}
    for images in (batch, other, batch, other):
        assert torch.equal(pooled.loss(images).loss, expected[images.seeds])


def test_there_is_no_pool_while_the_first_branch_trains(build: Build, batch: Batch) -> None:
    method = build("shortft", prefix_pool=4, batch_size=2)
    assert method.image_pool() == 0
    assert [method.loss(batch).evaluations[1] for _ in range(2)] == [2, 2]
    method.enter_stage(2)
    assert method.image_pool() == 4


def test_no_jump_of_any_stage_leaves_its_quarter(build: Build) -> None:
    method = build("shortft", steps=50)
    crossed = []
    for stage in STAGES:
        method.enter_stage(stage)
        jumps = [e for e in method.training_plan() if e.denoiser == "shortcut"]
        assert len(jumps) == 4 - stage
        borders = ((e, border) for e in jumps for border in (750, 500, 250))
        crossed += [e for e, border in borders if e.next_timestep < border < e.timestep]
    assert crossed == []
