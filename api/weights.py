"""Which weights a request needs, and what to say of those that are not on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from api.model_files import missing_files
from shortft_core import catalog
from shortft_core.catalog import Weights
from shortft_core.errors import MissingWeightsError
from shortft_core.settings import settings
from shortft_core.spec import AlignSpec, AnyReward, Direct, DistilSpec, ShortFT, Source
from shortft_core.spec import rewards as terms
from shortft_core.spec.generation import GenerationSpec

NeededWeights = tuple[str, Weights, str | None]
"""The field that names weights, the weights, and their revision."""
_Needed = Iterator[NeededWeights]


def check_weights(
    needed: Iterable[NeededWeights], hub_folder: Path
) -> Iterator[MissingWeightsError]:
    """One error for each part of a resolved request whose files are absent while offline."""
    if not settings().offline:
        return
    for field, weights, revision in needed:
        absent = missing_files(weights, hub_folder, revision)
        if absent:
            yield MissingWeightsError(
                field,
                f"{', '.join(absent)} is not on this machine, and downloads are switched off",
                "Run `shortft models fetch` where the hub can be reached, and copy the caches",
            )


def needed_by_job(spec: AlignSpec | DistilSpec) -> _Needed:
    """What a resolved job loads."""
    yield from _base(spec.base_model)
    if isinstance(spec, DistilSpec):
        yield from _terms(spec.evaluation.rewards, "evaluation.rewards")
        return
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


def _base(base: Source) -> _Needed:
    if base.name is not None:
        yield "base_model.name", catalog.BASE_MODELS[base.name].weights, None
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
        yield field, Weights(hub_id=source.id, licence=""), source.revision


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
        yield f"{field}.name", catalog.SHORTCUTS[source.name].files[segments], None
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
        yield field, weights, None
    if not entry.preset:
        yield from _hub(source, f"{field}.id")
