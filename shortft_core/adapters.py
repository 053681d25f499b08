"""The LoRA bank: k branches on the attention and feed-forward Linears of a frozen denoiser.

Branch i is the increment of segment i; a stack is the set of branches active together. peft is the
interchange format and not the mechanism here: switching its adapters inside one autograd graph
silently loses gradients (docs/decisions/0002).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shortft_core.errors import ArtifactError, UserError

TARGETS: Final = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
)
"""Attention and feed-forward Linears: 160 in SD 1.5, 47,874,048 parameters a branch at rank 128."""


class Stacks(Protocol):
    """What a chain asks of the branches: that a stack of them acts during one evaluation."""

    def stack(
        self, branches: Sequence[int], detached: Sequence[int] = ()
    ) -> AbstractContextManager[None]:
        """These branches act inside the block, none outside it; the detached ones do not learn."""
        ...


@dataclass(slots=True)
class Switch:
    """What acts now; all layers of a bank look at the same one, so switching costs nothing."""

    active: tuple[int, ...] = ()
    """Branches that act."""
    detached: tuple[int, ...] = ()
    """Branches that act without learning."""
    scale: float = 1.0
    """Strength of all branches."""


class BranchedLinear(nn.Module):
    """A frozen Linear plus the sum of its active branches, W x + sum_i B_i A_i x (alpha = rank)."""

    def __init__(self, base: nn.Linear, branches: int, rank: int, switch: Switch) -> None:
        super().__init__()
        self.base = base
        self.switch = switch
        device = base.weight.device
        self.down = nn.ParameterList(
            torch.empty(rank, base.in_features, device=device) for _ in range(branches)
        )
        self.up = nn.ParameterList(
            torch.zeros(base.out_features, rank, device=device) for _ in range(branches)
        )

    def forward(self, x: Tensor) -> Tensor:
        """A stack is concatenated along the rank: any depth is one down and one up product."""
        out: Tensor = self.base(x)
        active = self.switch.active
        if not active:
            return out
        down = _joined([self._weight(self.down, i) for i in active], dim=0).to(x.dtype)
        up = _joined([self._weight(self.up, i) for i in active], dim=1).to(x.dtype)
        increment = F.linear(F.linear(x, down), up)
        scale = self.switch.scale
        # Times one is the same bits for one more pass over the activations.
        return out + (increment if scale == 1 else scale * increment)

    def _weight(self, weights: nn.ParameterList, branch: int) -> Tensor:
        weight: Tensor = weights[branch - 1]
        return weight.detach() if branch in self.switch.detached else weight


def _joined(weights: list[Tensor], dim: int) -> Tensor:
    """Those of one branch are not copied."""
    return weights[0] if len(weights) == 1 else torch.cat(weights, dim=dim)


class AdapterBank:
    """Branches 1..k over one denoiser, which is changed in place and stays frozen itself.

    Raises ArtifactError if the denoiser carries a bank, UserError for a rank above the width of a
    layer; nothing is changed then.
    """

    def __init__(self, denoiser: nn.Module, *, branches: int, rank: int, seed: int = 0) -> None:
        if carries_bank(denoiser):
            raise ArtifactError("the denoiser carries another bank: detach that one first")
        targets = _targets(denoiser)
        _check_rank(rank, targets)
        self.denoiser, self.branches, self.rank = denoiser, branches, rank
        self.layers: dict[str, BranchedLinear] = {}
        self._switch = Switch()
        denoiser.requires_grad_(False)
        for name, linear in targets:
            layer = BranchedLinear(linear, branches, rank, self._switch)
            parent, _, child = name.rpartition(".")
            denoiser.get_submodule(parent).register_module(child, layer)
            self.layers[name] = layer
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        """Kaiming-uniform down, zero up: a new branch changes nothing."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers.values():
            bound = 1 / math.sqrt(layer.base.in_features)
            for down in layer.down:
                drawn = torch.empty(down.shape).uniform_(-bound, bound, generator=generator)
                down.data.copy_(drawn)

    def detach(self) -> None:
        """Takes every wrapper off: the denoiser is the base model again, bit for bit."""
        for name, layer in self.layers.items():
            parent, _, child = name.rpartition(".")
            self.denoiser.get_submodule(parent).register_module(child, layer.base)

    @contextmanager
    def stack(self, branches: Sequence[int], detached: Sequence[int] = ()) -> Iterator[None]:
        """These branches act inside the block; those in `detached` act but do not learn.

        A block inside a block replaces its stack and gives it back.
        """
        switch = self._switch
        before = switch.active, switch.detached
        switch.active, switch.detached = tuple(branches), tuple(detached)
        try:
            yield
        finally:
            switch.active, switch.detached = before

    @property
    def active(self) -> tuple[int, ...]:
        """Branches that act now."""
        return self._switch.active

    def set_scale(self, scale: float) -> None:
        """Strength of all branches; 0 is the base model, 1 what was trained."""
        self._switch.scale = scale

    @property
    def scale(self) -> float:
        """Strength of all branches."""
        return self._switch.scale

    def parameters(self, branch: int) -> list[nn.Parameter]:
        """Weights of one branch (numbered from 1), fp32."""
        return [
            w
            for layer in self.layers.values()
            for w in (layer.down[branch - 1], layer.up[branch - 1])
        ]

    def train_only(self, branches: Iterable[int]) -> None:
        """Exactly these branches require gradients; the others are frozen."""
        wanted = set(branches)
        for branch in range(1, self.branches + 1):
            for weight in self.parameters(branch):
                weight.requires_grad_(branch in wanted)

    def weights(self, branch: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer name -> (down [rank, in], up [out, rank]) of one branch, detached."""
        return {
            name: (layer.down[branch - 1].detach(), layer.up[branch - 1].detach())
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def load_weights(self, branch: int, weights: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Fills one branch; ArtifactError if layers or shapes differ."""
        if weights.keys() != self.layers.keys():
            odd = sorted(weights.keys() ^ self.layers.keys())
            raise ArtifactError(f"branch {branch} does not fit this denoiser, for example {odd[0]}")
        for name, (down, up) in weights.items():
            layer = self.layers[name]
            if down.shape != layer.down[branch - 1].shape or up.shape != layer.up[branch - 1].shape:
                raise ArtifactError(f"branch {branch} has another shape at {name}")
            layer.down[branch - 1].copy_(down)
            layer.up[branch - 1].copy_(up)


def carries_bank(denoiser: nn.Module) -> bool:
    """Whether a bank is attached: then the denoiser's names and outputs are not the base's."""
    return any(isinstance(module, BranchedLinear) for module in denoiser.modules())


def _check_rank(rank: int, targets: Sequence[tuple[str, nn.Linear]]) -> None:
    """A product B A of a rank above min(in, out) only repeats itself."""
    widths = {name: min(linear.in_features, linear.out_features) for name, linear in targets}
    if not widths:
        raise ArtifactError(f"the denoiser has no Linear named {', '.join(TARGETS)}")
    narrowest = min(widths, key=widths.__getitem__)
    if not 1 <= rank <= widths[narrowest]:
        raise UserError(
            "method.rank",
            f"rank {rank} does not fit {narrowest}, which is {widths[narrowest]} wide",
            f"Use 1 to {widths[narrowest]}",
        )


def _targets(denoiser: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [
        (name, module)
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(TARGETS)
    ]
