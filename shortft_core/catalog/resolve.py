"""From names to rows, factories and complete specifications."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from shortft_core.catalog.method_defaults import guidance_scale, resolve_method
from shortft_core.catalog.tables import (
    BASE_MODELS,
    DEFAULT_JUDGES,
    METHODS,
    ORACLE,
    PROMPT_SETS,
    REWARDS,
)
from shortft_core.errors import UnknownNameError, UserError
from shortft_core.spec import AlignSpec, AnyReward, DistilSpec, PromptSource, Source
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

    Raises UnknownNameError with the path of the field.
    """
    _check_name(spec.base_model.name, BASE_MODELS, "base_model.name")
    _check_prompts(spec.prompts, "prompts")
    prompts, evaluation_prompts = spec.prompts, spec.evaluation.prompts
    if evaluation_prompts is None:
        prompts, evaluation_prompts = _hold_out(prompts)
    _check_prompts(evaluation_prompts, "evaluation.prompts")
    held_out = _resolve_judges(spec)
    _refuse_without_gradient(spec)
    return spec.model_copy(
        update={
            "method": resolve_method(spec.method, spec.base_model),
            "rewards": tuple(
                resolve_reward(term, spec.base_model, f"rewards.{index}")
                for index, term in enumerate(spec.rewards)
            ),
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
            "guidance_scale": spec.guidance_scale or guidance_scale(spec.base_model),
            "prompts": prompts,
            "evaluation": spec.evaluation.model_copy(
                update={"prompts": held_out, "rewards": judges}
            ),
        }
    )


def resolve_job(spec: AlignSpec | DistilSpec) -> AlignSpec | DistilSpec:
    """A job of any kind, resolved; errors as in `resolve`."""
    return resolve(spec) if isinstance(spec, AlignSpec) else resolve_distil(spec)


def _resolve_judges(spec: AlignSpec) -> tuple[str, ...]:
    """The held-out judges: known, each once, and none of them optimised."""
    optimised = {part for term in spec.rewards for part in (term.name, *REWARDS[term.name].preset)}
    judges = spec.evaluation.held_out
    if judges is None:
        judges = tuple(judge for judge in DEFAULT_JUDGES if judge not in optimised)[:1]
    for index, judge in enumerate(judges):
        field = f"evaluation.held_out.{index}"
        _check_name(judge, (*REWARDS, ORACLE), field)
        if judge in optimised or judge in judges[:index]:
            why = "is optimised itself" if judge in optimised else "is named twice"
            raise UserError(field, f"{judge} {why}", "Name each judge once, beside the rewards")
    if spec.guard.action != "none" and not judges:
        raise UserError(
            "guard.action", "there is no held-out judge to guard", "Name evaluation.held_out"
        )
    return judges


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
