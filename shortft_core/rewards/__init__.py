"""Scores of images under prompts, higher is better; one file per reward, none knows another.

To add one: a spec class in `spec/rewards.py`, a file here with its factory, a line in the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, cast

import torch
from torch import Tensor

from shortft_core import catalog
from shortft_core.errors import UserError
from shortft_core.spec import AnyReward


class Reward(Protocol):
    """A differentiable score in raw units (cosines, kilobytes, ...)."""

    name: str

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Scores of images [B, 3, H, W] in [0, 1], float32 [B], one per sample, never reduced.

        `exact` preprocesses as the published numbers were made (uint8, PIL), for reporting.
        """
        ...


class Composite:
    """The weighted sum that a job maximizes; its terms and the presets among them stay visible."""

    def __init__(
        self,
        parts: Sequence[tuple[Reward, float]],
        presets: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        self.parts = tuple(parts)
        self._presets = presets
        self.name = " + ".join(f"{weight:g} {reward.name}" for reward, weight in self.parts)

    def terms(
        self, images: Tensor, prompts: Sequence[str], *, exact: bool = False
    ) -> dict[str, Tensor]:
        """Raw score [B] by reward name, not weighted; a preset and its parts each have theirs."""
        if images.ndim != 4 or images.shape[1] != 3 or len(images) != len(prompts):
            raise ValueError(f"{tuple(images.shape)} is not [{len(prompts)}, 3, H, W]")
        found = {
            reward.name: reward.score(images, prompts, exact=exact) for reward, _ in self.parts
        }
        for name, weights in self._presets.items():
            found[name] = _weighted_sum(found, weights)
        return found

    def weighted_sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The objective [B] that belongs to `terms`."""
        return _weighted_sum(terms, {reward.name: weight for reward, weight in self.parts})

    def shares(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Share of each part in the sum of the absolute weighted means: which one is heard."""
        heard = {r.name: abs(weight * terms[r.name].mean().item()) for r, weight in self.parts}
        total = sum(heard.values())
        return {name: value / total if total else 0.0 for name, value in heard.items()}

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Sum of weight times raw score, float32 [B]."""
        return self.weighted_sum(self.terms(images, prompts, exact=exact))


def _weighted_sum(scores: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    return torch.stack([weight * scores[name] for name, weight in weights.items()]).sum(0)


def build(
    terms: Sequence[AnyReward],
    *,
    device: torch.device,
    dtype: torch.dtype,
    field: str = "rewards",
) -> Composite:
    """Loads every term, presets expanded into their parts.

    Raises UserError if a reward is asked for twice with different settings, and what the loaders
    raise: UnknownNameError, MissingWeightsError, WeightsError.
    """
    # Gradients of scores at pixels are about 1e-5 and smaller, below what half precision holds.
    body = torch.float32 if dtype == torch.float16 else dtype
    merged: dict[str, tuple[AnyReward, str]] = {}
    for term, at in _expand(terms, field):
        merged[term.name] = (_merge(merged.get(term.name), term, at), at)
    parts: list[tuple[Reward, float]] = []
    for name, (term, at) in merged.items():
        target = catalog.find(catalog.REWARDS, name, f"{at}.name").target
        parts.append((catalog.load(target)(term, device=device, dtype=body, field=at), term.weight))
    presets = {term.name: catalog.REWARDS[term.name].preset for term in terms}
    return Composite(parts, {name: weights for name, weights in presets.items() if weights})


def _expand(terms: Sequence[AnyReward], field: str) -> Iterator[tuple[AnyReward, str]]:
    """Each term with the field that holds it; a preset becomes its parts."""
    for index, term in enumerate(terms):
        at = f"{field}.{index}"
        preset = catalog.find(catalog.REWARDS, term.name, f"{at}.name").preset
        if not preset:
            yield term, at
        for name, factor in preset.items():
            spec = catalog.REWARDS[name].spec
            where = dict.fromkeys(
                spec.model_fields.keys() & {"source", "clip"}, getattr(term, "source", None)
            )
            part = spec.model_validate({**where, "weight": factor * term.weight})
            yield cast("AnyReward", part), at


def _merge(before: tuple[AnyReward, str] | None, term: AnyReward, at: str) -> AnyReward:
    """The term itself, or the sum of its weight and that of an equal term before it."""
    if before is None:
        return term
    total = before[0].weight + term.weight
    if before[0].model_copy(update={"weight": term.weight}) != term:
        raise UserError(
            at,
            f"{term.name} is already part of {before[1]} with other settings",
            "Give both the same source, or drop one",
        )
    return term.model_copy(update={"weight": total})
