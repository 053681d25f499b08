"""From a request for images to the specification that a worker carries out; nothing stays open."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from api.adapter_choice import ChosenAdapter, check_steps, guidance_warnings, refuse_mixture
from api.mistakes import first_of_each_field, raised, refusal
from api.schemas.generations import GenerationRequest, OutputFormat
from shortft_core import catalog
from shortft_core.errors import UserError
from shortft_core.spec import AnyReward, Source
from shortft_core.spec.generation import GenerationSpec

DEFAULT_BASE_MODEL = Source(name="shapes")
DEFAULT_STEPS = 50
_RANDOM_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class Resolved:
    """A complete specification, and what the caller should know of it."""

    spec: GenerationSpec
    warnings: tuple[str, ...]


def resolve(
    asked: GenerationRequest, chosen: Sequence[ChosenAdapter], output_format: OutputFormat
) -> Resolved:
    """The specification of a request; raises ProblemError 422 with all its mistakes."""
    found = first_of_each_field(_mistakes(asked, chosen))
    if found:
        raise refusal(found)
    base_model = _base_model(asked, chosen)
    if chosen:
        steps = check_steps(chosen, asked.num_inference_steps)
        own = chosen[0].card.guidance_scale
    else:
        steps = asked.num_inference_steps or DEFAULT_STEPS
        own = catalog.tuning(base_model).guidance_scale
    guidance_scale = own if asked.guidance_scale is None else asked.guidance_scale
    spec = GenerationSpec(
        base_model=base_model,
        adapters=tuple(adapter.served for adapter in chosen),
        prompts=tuple(text for text in asked.texts for _ in range(asked.num_images)),
        negative_prompt=asked.negative_prompt,
        seeds=_seeds(asked),
        steps=steps,
        guidance_scale=guidance_scale,
        height=asked.height,
        width=asked.width,
        compare_base=asked.compare_base,
        score_with=tuple(
            catalog.resolve_reward(reward, base_model, f"score_with.{index}")
            for index, reward in enumerate(asked.score_with)
        ),
        output_format=output_format,
        output_quality=asked.output_quality,
        metadata=asked.metadata,
    )
    return Resolved(spec, guidance_warnings(chosen, guidance_scale))


def refuse_path(source: Source | None, field: str) -> None:
    """Raises UserError for a file of the service's machine."""
    if source is not None and source.path is not None:
        raise UserError(
            f"{field}.path", "a file of the service cannot be named here", "Use name or id"
        )


def _mistakes(asked: GenerationRequest, chosen: Sequence[ChosenAdapter]) -> Iterator[UserError]:
    yield from raised(partial(_check_base_model, asked.base_model, chosen))
    if chosen:
        yield from raised(partial(refuse_mixture, chosen))
        yield from raised(partial(check_steps, chosen, asked.num_inference_steps))
    yield from _reward_mistakes(asked.score_with, _base_model(asked, chosen))


def _reward_mistakes(rewards: Sequence[AnyReward], base_model: Source) -> Iterator[UserError]:
    for index, reward in enumerate(rewards):
        field = f"score_with.{index}"
        if reward.name in {earlier.name for earlier in rewards[:index]}:
            yield UserError(field, f"{reward.name} is named twice", "Name it once")
        for part in ("source", "clip"):
            source = getattr(reward, part, None)
            yield from raised(partial(refuse_path, source, f"{field}.{part}"))
        yield from raised(partial(catalog.resolve_reward, reward, base_model, field))


def _base_model(asked: GenerationRequest, chosen: Sequence[ChosenAdapter]) -> Source:
    return chosen[0].base_model if chosen else asked.base_model or DEFAULT_BASE_MODEL


def _check_base_model(asked: Source | None, chosen: Sequence[ChosenAdapter]) -> None:
    refuse_path(asked, "base_model")
    if asked is not None and asked.name is not None:
        catalog.find(catalog.BASE_MODELS, asked.name, "base_model.name")
    if asked is None or not chosen:
        return
    own = chosen[0].base_model
    if not _is_same(asked, own):
        raise UserError(
            "base_model",
            f"{chosen[0].served.id} belongs to {own}, not to {asked}",
            "Leave it out: the adapters name it",
        )


def _is_same(asked: Source, own: Source) -> bool:
    """Whether the caller means this model; a revision counts where it is given."""
    same = (asked.name, asked.id) == (own.name, own.id)
    return same and asked.revision in {None, own.revision}


def _seeds(asked: GenerationRequest) -> tuple[int, ...]:
    if asked.seeds is not None:
        return asked.seeds
    first = secrets.randbelow(_RANDOM_SEEDS) if asked.seed is None else asked.seed
    return tuple(range(first, first + asked.images))
