"""Adapters as a service runs them: any number, summed and merged, and no bank on the denoiser.

One warm base model serves many sets of adapters in turn, each at the cost of the model alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from shortft_core.adapter_card import AdapterCard
from shortft_core.adapters import AdapterBank
from shortft_core.errors import UserError
from shortft_core.export import ReadAdapter, foundation, read_adapter
from shortft_core.generate import Sampler
from shortft_core.merged import MergedStacks, WeightSets, stacks_of
from shortft_core.models import DiffusionModel
from shortft_core.schedule import Evaluation


@dataclass(frozen=True, slots=True)
class Scaled:
    """An adapter folder and how strongly it acts."""

    folder: Path
    scale: float = 1.0


def serve(adapters: Sequence[Scaled], model: DiffusionModel) -> Sampler:
    """The model with the sum of its adapters, W + sum_j s_j sum_i B_i A_i at each step.

    Its guidance is what the first adapter was trained at. Raises what `read_adapter` raises,
    UserError where the adapters stand on different chains or foundations, and DivergedError if a
    merged weight is not finite.
    """
    read = [read_adapter(adapter.folder, model) for adapter in adapters]
    cards = [each.card for each in read]
    _check_alike(cards)
    model = foundation(cards[0], model)
    plan = _summed_plan(cards)
    return Sampler(
        model=model,
        plan=plan,
        guidance_scale=cards[0].guidance_scale,
        stacks=_merge(read, [adapter.scale for adapter in adapters], model, plan),
        adapter={
            "adapter_sha256": ",".join(sha256 for card in cards for sha256 in card.sha256),
            "adapter_scale": ",".join(str(adapter.scale) for adapter in adapters),
        },
    )


def _check_alike(cards: Sequence[AdapterCard]) -> None:
    first = cards[0]
    for other in cards[1:]:
        if (other.timesteps, other.next_timesteps) != (first.timesteps, first.next_timesteps):
            raise UserError(
                "adapters",
                f"they serve different chains, of {len(first.timesteps)} and "
                f"{len(other.timesteps)} steps",
                "Combine adapters that were trained on one grid",
            )
        if _merged_first(other) != _merged_first(first):
            raise UserError(
                "adapters",
                "another model was merged into the base before one of them was trained",
                "Combine adapters that were trained on the same weights",
            )


def _merged_first(card: AdapterCard) -> tuple[object, ...]:
    return card.init_adapter_sha256, card.few_step_sha256, card.few_step and card.segments


def _summed_plan(cards: Sequence[AdapterCard]) -> tuple[Evaluation, ...]:
    """The chain on which the branches of all adapters act, numbered one adapter after another."""
    plan = []
    for evaluations in zip(*(card.plan for card in cards), strict=True):
        before, active = 0, []
        for card, evaluation in zip(cards, evaluations, strict=True):
            active += [before + branch for branch in evaluation.branches]
            before += len(card.branches)
        first = evaluations[0]
        plan.append(Evaluation(first.timestep, first.next_timestep, branches=tuple(active)))
    return tuple(plan)


def _merge(
    read: Sequence[ReadAdapter],
    scales: Sequence[float],
    model: DiffusionModel,
    plan: Sequence[Evaluation],
) -> WeightSets:
    rank = max(each.card.rank for each in read)
    branches = sum(len(each.branches) for each in read)
    bank = AdapterBank(model.denoiser, branches=branches, rank=rank)
    try:
        given = (
            (weights, scale)
            for each, scale in zip(read, scales, strict=True)
            for weights in each.weights(bank)
        )
        for branch, (weights, scale) in enumerate(given, start=1):
            scaled = {name: _scaled(*pair, scale, rank) for name, pair in weights.items()}
            bank.load_weights(branch, scaled)
        return MergedStacks(bank, stacks_of(plan)).sets()
    finally:
        bank.detach()


def _scaled(down: Tensor, up: Tensor, scale: float, rank: int) -> tuple[Tensor, Tensor]:
    """The pair in fp32 with its strength inside, filled up with zeros to the common rank."""
    missing = rank - len(down)
    down, up = down.to(torch.float32), up.to(torch.float32) * scale
    return F.pad(down, (0, 0, 0, missing)), F.pad(up, (0, missing))
