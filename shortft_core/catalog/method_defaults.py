"""Methods with every default filled in, and refused where their chain cannot be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from shortft_core import schedule
from shortft_core.catalog.entries import Tuning
from shortft_core.catalog.shortcuts import (
    SHORTCUTS,
    ShortcutUse,
    check_shortcut,
    names_of,
    shortcut_borders,
)
from shortft_core.catalog.tables import (
    BASE_MODELS,
    DEFAULT_TUNING,
    DEFAULT_UPDATES,
    PRESETS,
)
from shortft_core.errors import UnknownNameError, UserError
from shortft_core.spec import AnyMethod, Direct, ShortFT, Source
from shortft_core.stages import default_shares, stage_starts


def resolve_method(method: AnyMethod, base_model: Source) -> AnyMethod:
    """The method without an open field; resolving it again is the same.

    Raises UnknownNameError, UserError or PlanError for what cannot run on this base model.
    """
    defaults: dict[str, object] = asdict(tuning(base_model))
    if isinstance(method, Direct):
        defaults["guidance_scale"] = 1.0
    if method.seconds is None:
        defaults["updates"] = DEFAULT_UPDATES
    resolved = with_preset(_filled(method, defaults))
    if isinstance(resolved, ShortFT):
        return _resolve_shortft(resolved, base_model)
    if isinstance(resolved, Direct):
        return _resolve_direct(resolved, base_model)
    return resolved


def with_preset(method: AnyMethod) -> AnyMethod:
    """The method with the leashes of its preset, where it does not set them itself."""
    return _filled(method, PRESETS[method.preset])


def _filled(method: AnyMethod, defaults: Mapping[str, object]) -> AnyMethod:
    """The method with these values where it has none."""
    return method.model_copy(
        update={name: value for name, value in defaults.items() if getattr(method, name) is None}
    )


def tuning(source: Source) -> Tuning:
    """What a base model is sampled and tuned with unless a job says otherwise."""
    for name, entry in BASE_MODELS.items():
        if name == source.name or (source.id is not None and source.id == entry.weights.hub_id):
            return entry.tuning
    return DEFAULT_TUNING


def _resolve_shortft(method: ShortFT, base_model: Source) -> ShortFT:
    resolved = method.model_copy(
        update={"stage_shares": method.stage_shares or default_shares(method.segments)}
    )
    if method.ablation != "naive_jump":
        own = method.shortcut or _own_shortcut(base_model, "shortcut")
        resolved = resolved.model_copy(update={"shortcut": own})
    _refuse_illegal_chain(resolved, base_model.name)
    if resolved.updates is not None and resolved.ablation != "no_progressive":
        stage_starts(resolved.stage_shares or (), resolved.updates)
    return resolved


def _refuse_illegal_chain(method: ShortFT, base_model: str | None) -> None:
    """Every stage's chain is made once, so that nothing illegal waits for its stage."""
    borders: tuple[int, ...] = ()
    name = method.shortcut.name if method.shortcut else None
    if name is not None:
        if name not in names_of("shortcut"):
            raise UnknownNameError("method.shortcut.name", name, names_of("shortcut"))
        guidance = method.guidance_scale or DEFAULT_TUNING.guidance_scale
        entry = SHORTCUTS[name]
        check_shortcut(entry, method.segments, guidance, "method.shortcut", base_model=base_model)
        borders = shortcut_borders(entry, method.segments)
    readings = schedule.Readings(first_segment_grad_steps=method.first_segment_grad_steps)
    for stage in range(1, method.segments + 1):
        schedule.plan(
            method.steps, method.segments, stage, readings=readings, shortcut_borders=borders
        )


def _resolve_direct(method: Direct, base_model: Source) -> Direct:
    source = method.few_step or _own_shortcut(base_model, "few_step")
    if source.name is not None:
        if source.name not in names_of("few_step"):
            raise UnknownNameError("method.few_step.name", source.name, names_of("few_step"))
        check_shortcut(
            SHORTCUTS[source.name],
            method.segments,
            None,
            "method.few_step",
            use="few_step",
            base_model=base_model.name,
        )
    return method.model_copy(update={"few_step": source})


def _own_shortcut(base_model: Source, use: ShortcutUse) -> Source:
    """The base model's own, by name or by the hub id of its row."""
    for name, entry in BASE_MODELS.items():
        if name == base_model.name or (base_model.id and base_model.id == entry.weights.hub_id):
            own = entry.shortcut if use == "shortcut" else entry.few_step
            if own is not None:
                return Source(name=own)
    raise UserError(
        f"method.{use}",
        f"there is none known for {base_model}",
        "Name one, or distil one with `shortft distil`",
    )
