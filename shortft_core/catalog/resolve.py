"""From names to rows, factories and complete specifications."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from shortft_core.catalog.method_defaults import resolve_method, tuning
from shortft_core.catalog.tables import (
    BASE_MODELS,
    DEFAULT_JUDGES,
    METHODS,
    ORACLE,
    ORACLE_BASE_MODEL,
    ORACLE_CAPTIONS,
    PROMPT_SETS,
    REWARDS,
)
from shortft_core.errors import UnknownNameError, UserError
from shortft_core.spec import AlignSpec, AnyMethod, AnyReward, DistilSpec, PromptSource, Source
from shortft_core.spec import rewards as terms

_Entry = TypeVar("_Entry")


def find(table: Mapping[str, _Entry], name: str, field: str) -> _Entry:
    """The entry called `name`; raises UnknownNameError with the nearest known names."""
    if name not in table:
        raise UnknownNameError(field, name, table)
    return table[name]


def load(target: str) -> Callable[..., Any]:
    """The factory behind `module:function`, imported now."""
    module, _, function = target.partition(":")
    factory: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return factory


def source_names(reward: str) -> tuple[str, ...]:
    """Names that the reward's `source` may have, the default first; empty without weights.

    A preset takes those that all its rewards have.
    """
    entry = REWARDS[reward]
    if not entry.preset:
        return tuple(entry.weights)
    first, *others = (source_names(component) for component in entry.preset)
    return tuple(name for name in first if all(name in other for other in others))


def resolve(spec: AlignSpec) -> AlignSpec:
    """The job with every default filled in and every name known; resolving it again is the same.

    Raises UnknownNameError with the path of the field, UserError for what cannot go together.
    """
    _check_name(spec.base_model.name, BASE_MODELS, "base_model.name")
    _check_prompts(spec.prompts, "prompts")
    prompts, evaluation_prompts = spec.prompts, spec.evaluation.prompts
    if evaluation_prompts is None:
        prompts, evaluation_prompts = _hold_out(prompts)
    _check_prompts(evaluation_prompts, "evaluation.prompts")
    _refuse_without_gradient(spec)
    rewards = tuple(
        resolve_reward(term, spec.base_model, f"rewards.{index}")
        for index, term in enumerate(spec.rewards)
    )
    held_out = _resolve_judges(spec, rewards, evaluation_prompts)
    return spec.model_copy(
        update={
            "method": resolve_method(_with_its_axis(spec), spec.base_model),
            "rewards": rewards,
            "prompts": prompts,
            "evaluation": spec.evaluation.model_copy(
                update={"prompts": evaluation_prompts, "held_out": held_out}
            ),
        }
    )


def resolve_distil(spec: DistilSpec) -> DistilSpec:
    """The same for a distillation; errors as in `resolve`."""
    _check_name(spec.base_model.name, BASE_MODELS, "base_model.name")
    _check_prompts(spec.prompts, "prompts")
    prompts, held_out = spec.prompts, spec.evaluation.prompts
    if held_out is None:
        prompts, held_out = _hold_out(prompts)
    _check_prompts(held_out, "evaluation.prompts")
    judges = tuple(
        resolve_reward(term, spec.base_model, f"evaluation.rewards.{index}")
        for index, term in enumerate(spec.evaluation.rewards)
    )
    return spec.model_copy(
        update={
            "guidance_scale": spec.guidance_scale or tuning(spec.base_model).guidance_scale,
            "prompts": prompts,
            "evaluation": spec.evaluation.model_copy(
                update={"prompts": held_out, "rewards": judges}
            ),
        }
    )


def resolve_job(spec: AlignSpec | DistilSpec) -> AlignSpec | DistilSpec:
    """A job of any kind, resolved; errors as in `resolve`."""
    return resolve(spec) if isinstance(spec, AlignSpec) else resolve_distil(spec)


def _resolve_judges(
    spec: AlignSpec, rewards: Sequence[AnyReward], prompts: PromptSource
) -> tuple[str, ...]:
    """The held-out judges: known, each once, and none that measures what a reward measures.

    `rewards` are resolved, `prompts` are those of the evaluation.
    """
    judges = spec.evaluation.held_out
    if judges is None:
        judges = _default_judges(rewards, spec.base_model, prompts)
    _check_judges(judges, rewards, spec.base_model)
    if spec.guard.action != "none" and not judges:
        raise UserError(
            "guard.action", "there is no held-out judge to guard", "Name evaluation.held_out"
        )
    return judges


def _check_judges(judges: Sequence[str], rewards: Sequence[AnyReward], base_model: Source) -> None:
    """Raises UnknownNameError, or UserError for a judge named twice and one that is optimised."""
    for index, judge in enumerate(judges):
        field = f"evaluation.held_out.{index}"
        _check_name(judge, (*REWARDS, ORACLE), field)
        if judge in judges[:index]:
            raise UserError(field, f"{judge} is named twice", "Name each judge once")
        rival = _rival(judge, rewards, base_model)
        if rival is not None:
            itself = judge in (rival, *REWARDS[rival].preset)
            why = "is optimised itself" if itself else f"measures what {rival} rewards"
            raise UserError(
                field,
                f"{judge} {why}",
                "Name another judge, or leave evaluation.held_out to its default",
            )


def _default_judges(
    rewards: Sequence[AnyReward], base_model: Source, prompts: PromptSource
) -> tuple[str, ...]:
    """The first default judge without a rival among the rewards, else the oracle if it can read."""
    for judge in DEFAULT_JUDGES:
        if _rival(judge, rewards, base_model) is None:
            return (judge,)
    can_read = base_model.name == ORACLE_BASE_MODEL and _are_captions(prompts)
    return (ORACLE,) if can_read else ()


def _are_captions(prompts: PromptSource) -> bool:
    """Whether these are captions of the oracle's world; False where only the run reads them.

    The oracle stops a run at any other text, which no default may do.
    """
    if prompts.inline is not None:
        parse = load(ORACLE_CAPTIONS)
        return all(parse(text) is not None for text in prompts.inline)
    return prompts.name is not None and PROMPT_SETS[prompts.name].bundled is not None


def _rival(judge: str, rewards: Sequence[AnyReward], base_model: Source) -> str | None:
    """The resolved reward that measures something the judge measures, by name; None without one."""
    if judge == ORACLE:
        return None
    term = resolve_reward(terms.reward_term(judge), base_model, "evaluation.held_out")
    seen = _measured(term)
    return next((reward.name for reward in rewards if seen & _measured(reward)), None)


def _measured(term: AnyReward) -> set[object]:
    """What a resolved reward measures: its name or those of its parts, quantities and weights.

    Two names can stand for one score: of the same weights, or of the same property of the picture.
    """
    source: Source | None = getattr(term, "source", None)
    found: set[object] = {term.name}
    for part in REWARDS[term.name].preset or (term.name,):
        entry = REWARDS[part]
        found |= {part, entry.quantity or part}
        if source is not None:
            weights = entry.weights[source.name or next(iter(entry.weights))].values()
            given = source.id or source.path
            found.add(tuple((given or each.place, each.files) for each in weights))
    return found


def _with_its_axis(spec: AlignSpec) -> AnyMethod:
    """The method, without a random crop where symmetry is rewarded: a crop moves the axis.

    Raises UserError for a crop that is given all the same.
    """
    if not any(isinstance(term, terms.Symmetry) for term in spec.rewards):
        return spec.method
    if spec.method.crop_margin:
        raise UserError(
            "method.crop_margin",
            "a random crop moves the axis that symmetry mirrors at",
            "Leave it out, or drop the reward symmetry",
        )
    return spec.method.model_copy(update={"crop_margin": 0.0})


def _refuse_without_gradient(spec: AlignSpec) -> None:
    """Raises UserError for a reward without gradient under a method that needs it."""
    if not METHODS[spec.method.type].needs_gradient:
        return
    for index, term in enumerate(spec.rewards):
        if not REWARDS[term.name].differentiable:
            raise UserError(
                f"rewards.{index}.name",
                f"{term.name} is not differentiable, and {spec.method.type} back-propagates it",
                "Name it in evaluation.held_out, or use a reward with a gradient",
            )


def _check_name(name: str | None, known: Iterable[str], field: str) -> None:
    if name is not None and name not in (names := tuple(known)):
        raise UnknownNameError(field, name, names)


def _check_prompts(source: PromptSource, field: str) -> None:
    _check_name(source.name, PROMPT_SETS, f"{field}.name")


def _hold_out(source: PromptSource) -> tuple[PromptSource, PromptSource]:
    """Prompts to tune on and to evaluate on: the authors' own held-out set, else a split."""
    if source.name is not None and (held_out := PROMPT_SETS[source.name].evaluation):
        return source, PromptSource(name=held_out)
    ours, other = ("eval", "train") if source.split == "eval" else ("train", "eval")
    return source.model_copy(update={"split": ours}), source.model_copy(update={"split": other})


def resolve_reward(term: AnyReward, base_model: Source, field: str) -> AnyReward:
    """The term with its weights named: those made for the base model if there are any.

    Raises UnknownNameError with the path of the field.
    """
    if not isinstance(term, terms.PretrainedTerm | terms.PresetTerm):
        return term
    known = source_names(term.name)
    own = base_model.name if base_model.name in known else known[0]
    source = term.source or Source(name=own)
    _check_name(source.name, known, f"{field}.source.name")
    defaults = {"source": source}
    if isinstance(term, terms.Aesthetic):
        defaults["clip"] = term.clip or Source(name=source.name or known[0])
        _check_name(defaults["clip"].name, known, f"{field}.clip.name")
    return term.model_copy(update=defaults)
