"""Few-step models merged for use: as the shortcut of a chain, or as the model that is tuned."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from shortft_core import catalog
from shortft_core.adapters import carries_bank
from shortft_core.artifacts import file_sha256
from shortft_core.catalog import ShortcutEntry, Weights
from shortft_core.catalog.shortcuts import ShortcutUse
from shortft_core.errors import (
    ArtifactError,
    MissingWeightsError,
    UserError,
)
from shortft_core.lora_files import merge_into, read_lora
from shortft_core.models import DiffusionModel
from shortft_core.schedule import Spacing, ddim_grid, equal_borders
from shortft_core.shortcut_card import CARD_FILE, ShortcutCard, read_card
from shortft_core.spec import Source
from shortft_core.weights import checkpoint_file, locate

HUB_FILE: Final = "pytorch_lora_weights.safetensors"
"""The file of a hub repository outside the catalog, as diffusers names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shortcut:
    """A frozen denoiser whose one call stands for a stretch of the base model's guided chain."""

    model: DiffusionModel
    guidance_scale: float
    """Guidance of its own calls: 1 for one conditional call, where guidance is absorbed."""
    borders: tuple[int, ...] = ()
    """Timesteps that a jump may not cross."""
    jumps: tuple[tuple[int, int], ...] | None = None
    """The only jumps it was trained for; None: any within its borders."""
    spacing: Spacing = "trailing"
    """Where its own few-step chain stands."""
    sha256: str | None = None
    """Hash of its file; None for the base model itself."""
    source: Source | None = None


def naive(model: DiffusionModel, guidance_scale: float) -> Shortcut:
    """One guided DDIM step of the base model itself in place of a shortcut: the paper's ablation.

    No copy is made: a bank that is attached to the model must not act during a jump.
    """
    return Shortcut(model=model, guidance_scale=guidance_scale)


def load(
    source: Source,
    model: DiffusionModel,
    *,
    segments: int,
    guidance_scale: float,
    field: str = "method.shortcut",
) -> Shortcut:
    """A shortcut over k segments of the chain that `guidance_scale` guides, merged into a copy.

    The source is a name of the catalog, a hub repository, a LoRA file, or a folder that
    `shortft distil` wrote. Raises UnknownNameError, MissingWeightsError, WeightsError; UserError
    for a base model, grid, number of segments or guidance that it was not made for.
    """
    entry = _entry(source, field)
    if entry is not None:
        catalog.check_shortcut(entry, segments, guidance_scale, field)
    return _load(_Request(source, entry, model, segments, guidance_scale, "shortcut", field))


def few_step(
    source: Source, model: DiffusionModel, segments: int, *, field: str = "method.few_step"
) -> Shortcut:
    """A few-step model of k calls from noise to image, merged into a copy; what `direct` tunes.

    Raises what `load` raises.
    """
    entry = _entry(source, field)
    if entry is not None:
        catalog.check_shortcut(entry, segments, None, field, use="few_step")
    return _load(_Request(source, entry, model, segments, None, "few_step", field))


def with_lora(
    source: Source, model: DiffusionModel, *, field: str = "method.init_adapter"
) -> tuple[DiffusionModel, str]:
    """The model with a LoRA of any origin merged into a copy of its denoiser, and the file's hash.

    Raises MissingWeightsError, WeightsError.
    """
    path = checkpoint_file(_path(source, field), field=field)
    sha256 = file_sha256(path)
    return _merged(model, path, sha256, None, field), sha256


@dataclass(frozen=True, slots=True)
class _Request:
    """What a job asks of a few-step model."""

    source: Source
    entry: ShortcutEntry | None
    """Its row of the catalog, if it is named."""
    model: DiffusionModel
    segments: int
    guidance_scale: float | None
    """Guidance of the chain it is to stand for; None where it stands for itself."""
    use: ShortcutUse
    field: str


def _entry(source: Source, field: str) -> ShortcutEntry | None:
    if source.name is None:
        return None
    return catalog.find(catalog.SHORTCUTS, source.name, f"{field}.name")


def _load(request: _Request) -> Shortcut:
    entry, model = request.entry, request.model
    path, card_path = _files(request)
    sha256 = file_sha256(path)
    card = None if card_path is None else read_card(card_path)
    if card is not None:
        _check_card(card, request, sha256)
    scale = None if entry is None else entry.scale
    merged = _merged(model, path, sha256, scale, request.field)
    shortcut = Shortcut(model=merged, guidance_scale=1.0, sha256=sha256, source=request.source)
    if card is not None:
        return replace(shortcut, jumps=card.jumps, spacing="segments")
    if entry is None:
        # Nothing is known of it, so it may do what a model distilled in k parts may do.
        return replace(shortcut, borders=equal_borders(request.segments, model.train_timesteps))
    return replace(
        shortcut,
        guidance_scale=1.0 if entry.absorbs_guidance else request.guidance_scale or 1.0,
        borders=catalog.shortcut_borders(entry, request.segments, model.train_timesteps),
        spacing=entry.spacing,
    )


def _files(request: _Request) -> tuple[Path, Path | None]:
    """The LoRA file, and the card of one that was distilled for exact jumps."""
    if request.entry is not None:
        path = locate(request.entry.files[request.segments], field=request.field)
        return path, path.with_suffix(".json") if request.entry.jumps == "targeted" else None
    path = _path(request.source, request.field)
    card = (path if path.is_dir() else path.parent) / CARD_FILE
    if not card.is_file():
        return checkpoint_file(path, field=request.field), None
    lora = card.parent / read_card(card).file
    named = path.resolve() in {lora.resolve(), card.parent.resolve()}
    return (lora, card) if named else (path, None)


def _path(source: Source, field: str) -> Path:
    """A file or folder that the user named; a hub repository is expected to hold HUB_FILE."""
    if source.name is not None:
        raise UserError(
            f"{field}.name",
            f"{source.name!r} is a name, and the catalog holds no LoRA of this kind",
            "Give the path or the hub id of a LoRA",
        )
    if source.id is not None:
        weights = Weights(hub_id=source.id, files=(HUB_FILE,), licence="stated by its owner")
        return locate(weights, field=field, revision=source.revision)
    path = Path(source.path or "")
    if not path.exists():
        raise MissingWeightsError(field, f"{path} does not exist", "Correct the path")
    return path


def _check_card(card: ShortcutCard, request: _Request, sha256: str) -> None:
    """What was distilled for one model, grid and guidance serves no other."""
    model, field = request.model, request.field
    if card.sha256 != sha256:
        raise ArtifactError(f"the file of {request.source} changed after it was distilled")
    if card.kind != request.use:
        raise UserError(field, f"it is a {card.kind}, not a {request.use}", "Distil the other kind")
    if card.base_sha256 != model.base_fingerprint:
        raise UserError(
            field, "it was distilled for another base model", f"Use it with {card.base_model}"
        )
    if card.segments != request.segments:
        raise UserError(
            field,
            f"it was distilled for {card.segments} segments, not {request.segments}",
            f"Use {card.segments} segments, or distil one for {request.segments}",
        )
    if card.timesteps != ddim_grid(card.steps, model.train_timesteps, model.steps_offset):
        raise UserError(
            field,
            f"it was distilled on another grid than the {card.steps} steps of this model",
            "Distil one for this model with `shortft distil`",
        )
    if request.guidance_scale not in {None, card.guidance_scale}:
        raise UserError(
            field,
            f"it stands for guidance {card.guidance_scale:g}, not {request.guidance_scale:g}",
            f"Use guidance {card.guidance_scale:g}, or distil one for yours",
        )


def _merged(
    model: DiffusionModel, path: Path, sha256: str, scale: float | None, field: str
) -> DiffusionModel:
    """The model with a copy of its denoiser, the LoRA merged, frozen."""
    if carries_bank(model.denoiser):
        raise ArtifactError("a bank is attached to the model: load its shortcut before it")
    deltas = read_lora(path, field=field, scale=scale)
    denoiser = copy.deepcopy(model.denoiser)
    merge_into(denoiser, deltas, field=field)
    denoiser.requires_grad_(False).eval()
    return model.with_denoiser(denoiser, fingerprint_suffix=sha256)
