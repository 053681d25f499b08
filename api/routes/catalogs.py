"""The catalog: base models, rewards and methods that a specification may name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from fastapi import APIRouter, Depends
from pydantic_core import to_jsonable_python

from api.auth import requires
from api.model_files import missing_files, size_on_disk
from api.schemas.catalogs import (
    MethodAnswer,
    ModelAnswer,
    RewardAnswer,
    RewardSource,
    ShortcutAnswer,
)
from api.schemas.common import ListOf
from api.service import AnyService
from shortft_core import catalog
from store.api_keys import Scope

router = APIRouter(tags=["catalog"])
_Item = TypeVar("_Item", ModelAnswer, RewardAnswer, MethodAnswer)
_READERS: Final = [Depends(requires(Scope.JOBS_READ))]
_UNITS: Final[Mapping[str, str]] = {
    "steps": "denoising steps",
    "updates": "optimizer updates",
    "warmup_updates": "optimizer updates",
    "checkpoint_every": "optimizer updates",
    "seconds": "seconds",
    "batch_size": "images",
    "accumulation": "batches",
    "segments": "segments",
    "first_segment_grad_steps": "denoising steps",
    "crop_margin": "share of a side",
}


@router.get("/models", dependencies=_READERS)
def list_models(service: AnyService) -> ListOf[ModelAnswer]:
    """The base models of the catalog; others are named by their hub id."""
    hub = service.settings.hub_folder()
    return _all([_model(name, entry, hub) for name, entry in catalog.BASE_MODELS.items()])


@router.get("/rewards", dependencies=_READERS)
def list_rewards(service: AnyService) -> ListOf[RewardAnswer]:
    """The rewards of the catalog, with the parameters of each."""
    hub = service.settings.hub_folder()
    return _all([_reward(name, entry, hub) for name, entry in catalog.REWARDS.items()])


@router.get("/methods", dependencies=_READERS)
def list_methods() -> ListOf[MethodAnswer]:
    """The tuning methods of the catalog, with the parameters of each."""
    return _all([_method(name, entry) for name, entry in catalog.METHODS.items()])


def _all(items: list[_Item]) -> ListOf[_Item]:
    return ListOf(data=items, first_id=items[0].name, last_id=items[-1].name, has_more=False)


def _model(name: str, entry: catalog.BaseModel, hub: Path) -> ModelAnswer:
    size = size_on_disk(entry.weights, hub)
    return ModelAnswer(
        name=name,
        summary=entry.summary,
        licence=entry.weights.licence,
        hub_id=entry.weights.hub_id,
        guidance_scale=entry.tuning.guidance_scale,
        on_disk=size is not None,
        size_bytes=size,
        default_shortcut=entry.shortcut,
        default_few_step=entry.few_step,
        shortcuts=[
            _shortcut(title, shortcut, hub)
            for title, shortcut in catalog.SHORTCUTS.items()
            if name in shortcut.base_models
        ],
    )


def _shortcut(name: str, entry: catalog.ShortcutEntry, hub: Path) -> ShortcutAnswer:
    return ShortcutAnswer(
        name=name,
        summary=entry.summary,
        licence=entry.licence,
        segments=sorted(entry.files),
        use=entry.use,
        on_disk=[k for k in sorted(entry.files) if not missing_files(entry.files[k], hub)],
    )


def _reward(name: str, entry: catalog.Reward, hub: Path) -> RewardAnswer:
    return RewardAnswer(
        name=name,
        summary=entry.summary,
        differentiable=entry.differentiable,
        sources=[_source(name, source, hub) for source in catalog.source_names(name)],
        adds_up=dict(entry.preset),
        parameters=entry.spec.model_json_schema(),
    )


def _source(reward: str, source: str, hub: Path) -> RewardSource:
    """Weights of a reward under a name; for a preset, those of all its rewards."""
    rewards = [catalog.REWARDS[part] for part in catalog.REWARDS[reward].preset or (reward,)]
    parts = [weights for entry in rewards for weights in entry.weights[source].values()]
    sizes = [size_on_disk(weights, hub) for weights in parts]
    known = [size for size in sizes if size is not None]
    return RewardSource(
        name=source,
        licence="; ".join(dict.fromkeys(weights.licence for weights in parts)),
        on_disk=len(known) == len(sizes),
        size_bytes=sum(known) if len(known) == len(sizes) else None,
    )


def _method(name: str, entry: catalog.MethodEntry) -> MethodAnswer:
    fields = entry.spec.model_fields
    defaults = {
        field: to_jsonable_python(info.get_default(call_default_factory=True))
        for field, info in fields.items()
        if not info.is_required()
    }
    return MethodAnswer(
        name=name,
        summary=entry.summary,
        needs_gradient=entry.needs_gradient,
        parameters=entry.spec.model_json_schema(),
        defaults=defaults,
        units={field: unit for field, unit in _UNITS.items() if field in fields},
    )
