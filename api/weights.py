"""Which weights a request needs, and what to say of those that are refused or not here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.model_files import missing_files
from api.settings import ApiSettings
from shortft_core import catalog
from shortft_core.catalog import Weights
from shortft_core.errors import MissingWeightsError, UserError
from shortft_core.settings import settings as core_settings
from shortft_core.spec import AlignSpec, AnyReward, Direct, DistilSpec, ShortFT, Source
from shortft_core.spec import rewards as terms
from shortft_core.spec.generation import GenerationSpec

_BASE_MODEL: Final = frozenset({"base_model.name", "base_model.id"})


@dataclass(frozen=True, slots=True)
class NeededWeights:
    """One set of weights that a request loads."""

    field: str
    """The field that names it."""
    weights: Weights | None
    """None where only its loader knows its files."""
    revision: str | None = None
    model: str | None = None
    """What the operator's list of models has to hold; None for what the list does not rule."""


_Needed = Iterator[NeededWeights]


def check_weights(needed: Iterable[NeededWeights], settings: ApiSettings) -> Iterator[UserError]:
    """One error for each part of a resolved request that may not be loaded, or cannot be.

    The first are not on the operator's list of models, the others are absent while offline.
    """
    for part in needed:
        refused = _unlisted(part, settings.allowed_base_models) or _absent(
            part, settings.hub_folder()
        )
        if refused is not None:
            yield refused


def needed_by_job(spec: AlignSpec | DistilSpec) -> _Needed:
    """What a resolved job loads."""
    yield from _base(spec.base_model)
    if isinstance(spec, DistilSpec):
        yield from _terms(spec.evaluation.rewards, "evaluation.rewards")
        return
    yield from _init_adapter(spec.method.init_adapter)
    yield from _shortcut(spec)
    yield from _terms(spec.rewards, "rewards")
    for index, judge in enumerate(spec.evaluation.held_out or ()):
        if judge in catalog.REWARDS:
            yield from _judge(judge, spec.base_model, f"evaluation.held_out.{index}")


def needed_by_generation(spec: GenerationSpec) -> _Needed:
    """What a resolved request for images loads, beside its adapters."""
    yield from _base(spec.base_model)
    yield from _terms(spec.score_with, "score_with")


def needed_by_score(term: AnyReward) -> _Needed:
    """What a resolved reward loads, alone."""
    return _term(term, "")


def _unlisted(part: NeededWeights, listed: tuple[str, ...] | None) -> UserError | None:
    if listed is None or part.model is None or part.model in listed:
        return None
    remedy = "Ask the operator to list it in SHORTFT_ALLOWED_BASE_MODELS, or use another"
    if part.field in _BASE_MODEL:
        remedy = f"Use {' or '.join(listed)}"
    return UserError(part.field, f"{part.model} is not on this service's list of models", remedy)


def _absent(part: NeededWeights, hub_folder: Path) -> MissingWeightsError | None:
    if part.weights is None or not core_settings().offline:
        return None
    absent = missing_files(part.weights, hub_folder, part.revision)
    if not absent:
        return None
    return MissingWeightsError(
        part.field,
        f"{', '.join(absent)} is not on this machine, and downloads are switched off",
        "Run `shortft models fetch` where the hub can be reached, and copy the caches",
    )


def _base(base: Source) -> _Needed:
    if base.name is not None:
        weights = catalog.BASE_MODELS[base.name].weights
        yield NeededWeights("base_model.name", weights, model=base.name)
    yield from _hub(base, "base_model.id")


def _terms(rewards: Sequence[AnyReward], field: str) -> _Needed:
    for index, term in enumerate(rewards):
        yield from _term(term, f"{field}.{index}.")


def _term(term: AnyReward, prefix: str) -> _Needed:
    yield from _reward(term.name, getattr(term, "source", None), f"{prefix}source")
    if isinstance(term, terms.Aesthetic) and term.clip is not None:
        yield from _hub(term.clip, f"{prefix}clip.id")


def _hub(source: Source, field: str) -> _Needed:
    if source.id is not None:
        weights = Weights(hub_id=source.id, licence="")
        yield NeededWeights(field, weights, source.revision, source.id)


def _init_adapter(source: Source | None) -> _Needed:
    if source is not None and source.id is not None:
        yield NeededWeights("method.init_adapter.id", None, model=source.id)


def _shortcut(spec: AlignSpec) -> _Needed:
    method = spec.method
    if isinstance(method, ShortFT):
        source, segments, field = method.shortcut, method.segments, "method.shortcut"
    elif isinstance(method, Direct):
        source, segments, field = method.few_step, method.segments, "method.few_step"
    else:
        return
    if source is None:
        return
    if source.name is not None:
        yield NeededWeights(f"{field}.name", catalog.SHORTCUTS[source.name].files[segments])
    yield from _hub(source, f"{field}.id")


def _judge(name: str, base: Source, field: str) -> _Needed:
    known = catalog.source_names(name)
    if known:
        source = Source(name=base.name if base.name in known else known[0])
        yield from _reward(name, source, field)


def _reward(name: str, source: Source | None, field: str) -> _Needed:
    entry = catalog.REWARDS[name]
    for component in entry.preset:
        yield from _reward(component, source, field)
    if source is None:
        return
    for weights in entry.weights.get(source.name or "", {}).values():
        yield NeededWeights(field, weights)
    if not entry.preset:
        yield from _hub(source, f"{field}.id")
