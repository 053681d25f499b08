"""Warm models of a generation process: base models, merged adapters, rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from shortft_core import models, rewards
from shortft_core.adapter_card import AdapterCard, read_card
from shortft_core.errors import UserError
from shortft_core.generate import Sampler, base_sampler, untuned
from shortft_core.models import DiffusionModel
from shortft_core.rewards import Composite
from shortft_core.serving import Scaled, serve
from shortft_core.spec import AnyReward, Source
from shortft_core.spec.generation import GenerationSpec
from worker.children.pictures import Chain
from worker.children.warm import Warm


class Pipelines:
    """Gives what a request needs, loaded once and shared as long as memory lasts."""

    def __init__(self, device: torch.device, memory_bytes: int) -> None:
        self.device = device
        # Merged weights are sums: bf16 would round most of a small increment away, fp16 does not.
        self._dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._warm = Warm(memory_bytes)

    def model(self, source: Source) -> DiffusionModel:
        """A base model; raises what `models.load` raises."""
        return self._warm.get(
            _model_key(source),
            lambda: models.load(source, device=self.device, dtype=self._dtype),
        )

    def sampler(self, spec: GenerationSpec, folders: Sequence[Path]) -> Sampler:
        """What makes the pictures of a request; raises UserError for one that nothing serves."""
        model = self.model(spec.base_model)
        size = (spec.height or model.image_size, spec.width or model.image_size)
        model.latent_shape(*size)
        sampler = self._tuned(spec, folders, model) if spec.adapters else None
        if sampler is None:
            sampler = base_sampler(model, steps=spec.steps)
        elif len(sampler.plan) != spec.steps:
            raise UserError(
                "steps",
                f"the adapters serve a chain of {len(sampler.plan)} steps only",
                f"Use {len(sampler.plan)} steps",
            )
        return _asked(sampler, spec, size)

    def base(self, spec: GenerationSpec, tuned: Sampler) -> Sampler:
        """What makes the base model's pictures beside those of a request."""
        return untuned(self._prompted(spec), tuned)

    def rewards(self, terms: Sequence[AnyReward]) -> Composite:
        """Rewards in fp32, as published scores were computed; raises what their loaders raise."""
        key = ("rewards", *(term.model_dump_json() for term in terms))
        return self._warm.get(
            key,
            lambda: rewards.build(
                terms, device=self.device, dtype=torch.float32, field="score_with"
            ),
        )

    def make_room(self, spec: GenerationSpec) -> None:
        """Frees everything that a request does not need."""
        self._warm.forget_all(but=frozenset({_model_key(spec.base_model), _adapters_key(spec)}))

    def _prompted(self, spec: GenerationSpec) -> DiffusionModel:
        model = self.model(spec.base_model)
        return model.with_negative_prompt(spec.negative_prompt) if spec.negative_prompt else model

    def _tuned(
        self, spec: GenerationSpec, folders: Sequence[Path], model: DiffusionModel
    ) -> Sampler:
        scaled = [
            Scaled(folder, adapter.scale)
            for folder, adapter in zip(folders, spec.adapters, strict=True)
        ]
        return self._warm.get(
            _adapters_key(spec), lambda: serve(scaled, model), upon=_model_key(spec.base_model)
        )


def chain_of(spec: GenerationSpec, folders: Sequence[Path], sampler: Sampler) -> Chain:
    """What the pictures of a request say of how they were made."""
    cards = {
        adapter.id: read_card(folder)
        for folder, adapter in zip(folders, spec.adapters, strict=True)
    }
    return Chain(
        model=str(spec.base_model),
        model_sha256=sampler.model.base_fingerprint,
        steps=len(sampler.plan),
        guidance_scale=sampler.guidance_scale,
        lora_sha256={name: card.sha256 for name, card in cards.items()},
    )


def warnings_of(spec: GenerationSpec, folders: Sequence[Path], sampler: Sampler) -> list[str]:
    """What the caller should know of a request that is served all the same."""
    found = [
        f"{adapter.id} was trained at guidance {card.guidance_scale:g}, "
        f"not {sampler.guidance_scale:g}"
        for adapter, card in zip(spec.adapters, _cards(folders), strict=True)
        if card.guidance_scale != sampler.guidance_scale
    ]
    if spec.negative_prompt and sampler.guidance_scale == 1.0:
        found.append("negative_prompt has no effect at guidance 1")
    cut = sampler.model.overlong([*spec.prompts, spec.negative_prompt or ""])
    return found + [f"the text encoder sees only the beginning of {prompt!r}" for prompt in cut]


def _cards(folders: Sequence[Path]) -> list[AdapterCard]:
    return [read_card(folder) for folder in folders]


def _asked(sampler: Sampler, spec: GenerationSpec, size: tuple[int, int]) -> Sampler:
    model, scale = sampler.model, spec.guidance_scale
    if spec.negative_prompt:
        model = model.with_negative_prompt(spec.negative_prompt)
    return replace(
        sampler,
        model=model,
        guidance_scale=sampler.guidance_scale if scale is None else scale,
        size=size,
    )


def _model_key(source: Source) -> tuple[str, str]:
    return "model", source.model_dump_json()


def _adapters_key(spec: GenerationSpec) -> tuple[str, ...]:
    scaled = (f"{adapter.card_sha256} {adapter.scale}" for adapter in spec.adapters)
    return "adapters", spec.base_model.model_dump_json(), *scaled
