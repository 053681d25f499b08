"""Merged weight sets: every stack of an adapter at the cost of the base model alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor

from shortft_core.adapters import AdapterBank, BranchedLinear, Stacks
from shortft_core.errors import DivergedError
from shortft_core.schedule import Evaluation

BASE: Final[tuple[int, ...]] = ()
"""The stack of the base model."""


class WeightSets:
    """Ready weights of some layers, one set for each stack, swapped in by pointer.

    Any number of them may serve one denoiser in turn. They carry no gradient.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        sets: Mapping[tuple[int, ...], Sequence[Tensor]],
    ) -> None:
        self._weights = list(weights)
        self._current, self._held = BASE, False
        self._entered: tuple[int, ...] | None = None
        self._sets = {BASE: tuple(weight.data for weight in self._weights)}
        self._sets |= {stack: tuple(merged) for stack, merged in sets.items() if stack != BASE}

    @contextmanager
    def stack(self, branches: Sequence[int], detached: Sequence[int] = ()) -> Iterator[None]:
        """These branches act inside the block; afterwards what acted before.

        `detached` changes nothing, for no branch learns here. Raises ValueError for a stack that
        was not merged, and where a branch is asked to learn.
        """
        wanted, outer = tuple(branches), self._entered
        self._check(wanted, detached)
        try:
            self._entered = wanted
            self._swap(wanted)
            yield
        finally:
            self._entered = outer
            if outer is not None:
                self._swap(outer)
            elif not self._held:
                self._swap(BASE)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, weights are swapped only where the stack of a chain changes.

        The base weights return at the end of this block in place of the end of each stack's.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._swap(BASE)

    def _swap(self, stack: tuple[int, ...]) -> None:
        if stack != self._current:
            self._current = stack
            for weight, data in zip(self._weights, self._sets[stack], strict=True):
                weight.data = data

    def _check(self, wanted: tuple[int, ...], detached: Sequence[int]) -> None:  # noqa: ARG002
        if wanted not in self._sets:
            known = ", ".join(map(str, self._sets))
            raise ValueError(f"stack {wanted} was not merged, only {known}")


class MergedStacks(WeightSets):
    """W + scale sum_i B_i A_i for each stack; serves what the bank serves.

    Each set is computed in at least fp32 from the untouched base weights and rounded once to
    their precision, so nothing drifts however often stacks change. The sets are those of the
    branches as they are now: make new ones when the bank has learnt.

    Raises DivergedError if a merged weight is not finite.
    """

    def __init__(self, bank: AdapterBank, stacks: Iterable[Sequence[int]]) -> None:
        wanted = dict.fromkeys(tuple(stack) for stack in stacks)
        weights = [layer.base.weight for layer in bank.layers.values()]
        super().__init__(weights, {stack: _merge(bank, stack) for stack in wanted if stack != BASE})
        self.bank = bank

    def sets(self) -> WeightSets:
        """The sets alone: they serve the denoiser after the bank is detached and forgotten."""
        return WeightSets(self._weights, self._sets)

    def _check(self, wanted: tuple[int, ...], detached: Sequence[int]) -> None:
        super()._check(wanted, detached)
        if self.bank.active:
            raise ValueError(f"stack {self.bank.active} of the bank acts already: leave it first")
        if torch.is_grad_enabled() and self._learns(set(wanted) - set(detached)):
            raise ValueError(f"merged weights carry no gradient of {wanted}: use the bank itself")

    def _learns(self, branches: Iterable[int]) -> bool:
        return any(self.bank.parameters(branch)[0].requires_grad for branch in branches)


def stacks_of(plan: Sequence[Evaluation]) -> tuple[tuple[int, ...], ...]:
    """The distinct stacks of a chain, in the order they come."""
    return tuple(dict.fromkeys(evaluation.branches for evaluation in plan))


def serving_stacks(bank: AdapterBank, plan: Sequence[Evaluation]) -> Stacks:
    """What a chain is served with: merged sets, or the bank itself beside bf16 weights.

    A bf16 weight keeps 8 bits, so rounding a sum to it would lose much of a small increment; fp16
    keeps 11 and serves merged.
    """
    dtype = next(iter(bank.layers.values())).base.weight.dtype
    return bank if dtype == torch.bfloat16 else MergedStacks(bank, stacks_of(plan))


@torch.no_grad()
def _merge(bank: AdapterBank, stack: tuple[int, ...]) -> tuple[Tensor, ...]:
    weights = []
    for name, layer in bank.layers.items():
        weight = _sum(layer, stack, bank.scale)
        if not torch.isfinite(weight).all():
            raise DivergedError(f"branches {stack} make {name} not finite in {weight.dtype}")
        weights.append(weight)
    return tuple(weights)


def _sum(layer: BranchedLinear, stack: tuple[int, ...], scale: float) -> Tensor:
    base = layer.base.weight.data
    precision = torch.promote_types(base.dtype, torch.float32)
    down = torch.cat([layer.down[branch - 1] for branch in stack]).to(precision)
    up = torch.cat([layer.up[branch - 1] for branch in stack], dim=1).to(precision)
    return torch.addmm(base.to(precision), up, down, alpha=scale).to(base.dtype)
