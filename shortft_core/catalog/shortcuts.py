"""Few-step LoRAs that may stand in for stretches of a base model's chain, and what each allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from shortft_core import schedule
from shortft_core.catalog.entries import ShortcutEntry, Weights
from shortft_core.errors import UserError

ShortcutUse = Literal["shortcut", "few_step"]


def _hub(hub_id: str, licence: str, files: Mapping[int, str]) -> dict[int, Weights]:
    return {
        segments: Weights(hub_id=hub_id, files=(name,), licence=licence)
        for segments, name in files.items()
    }


def _bundled(folder: str, segments: Iterable[int]) -> dict[int, Weights]:
    return {
        count: Weights(bundled=folder, files=(f"k{count}.safetensors",), licence="Apache-2.0")
        for count in segments
    }


_HYPER: Final = ("ByteDance/Hyper-SD", "CreativeML Open RAIL++-M")
_PCM: Final = ("wangfuyun/PCM_Weights", "stated by its owner")
_TCD: Final = ("h1t/TCD-SD15-LoRA", "stated by its owner")

SHORTCUTS: Final[Mapping[str, ShortcutEntry]] = {
    "hyper-sd15": ShortcutEntry(
        files=_hub(*_HYPER, {k: f"Hyper-SD15-{k}steps-lora.safetensors" for k in (2, 4, 8)}),
        base_models=("sd15",),
        jumps="parts",
        spacing="trailing",
        absorbs_guidance=True,
        guidance_range=None,
        summary="Hyper-SD of SD 1.5, the shortcut of the paper; its effective guidance is unknown",
    ),
    "hyper-sd15-cfg": ShortcutEntry(
        files=_hub(*_HYPER, {8: "Hyper-SD15-8steps-CFG-lora.safetensors"}),
        base_models=("sd15",),
        jumps="parts",
        spacing="trailing",
        absorbs_guidance=False,
        guidance_range=(5.0, 8.0),
        use="shortcut",
        summary="Hyper-SD of SD 1.5 that preserves guidance: two calls a jump",
    ),
    "pcm-sd15-smallcfg": ShortcutEntry(
        files=_hub(
            *_PCM,
            {k: f"sd15/pcm_sd15_smallcfg_{k}step_converted.safetensors" for k in (2, 4, 8)},
        ),
        base_models=("sd15",),
        jumps="parts",
        spacing="trailing",
        absorbs_guidance=True,
        guidance_range=None,
        summary="Phased consistency model of SD 1.5, without guidance",
    ),
    "pcm-sd15-normalcfg": ShortcutEntry(
        files=_hub(
            *_PCM,
            {k: f"sd15/pcm_sd15_normalcfg_{k}step_converted.safetensors" for k in (4, 8)},
        ),
        base_models=("sd15",),
        jumps="parts",
        spacing="trailing",
        absorbs_guidance=False,
        guidance_range=None,
        use="shortcut",
        summary="Phased consistency model of SD 1.5 that preserves guidance (its authors use 7.5)",
    ),
    "tcd-sd15": ShortcutEntry(
        files=_hub(*_TCD, dict.fromkeys((2, 3, 4, 8), "pytorch_lora_weights.safetensors")),
        base_models=("sd15",),
        jumps="any",
        spacing="trailing",
        absorbs_guidance=True,
        guidance_range=None,
        summary="Trajectory consistency distillation of SD 1.5: one file, any jump",
    ),
    "shapes-shortcut": ShortcutEntry(
        files=_bundled("shapes-shortcut", (2, 4)),
        base_models=("shapes",),
        jumps="targeted",
        spacing="segments",
        absorbs_guidance=True,
        guidance_range=(3.0, 3.0),
        use="shortcut",
        summary="Bundled jumps of `shapes`, distilled by `shortft distil` for 50 steps",
    ),
    "shapes-fewstep": ShortcutEntry(
        files=_bundled("shapes-fewstep", (4,)),
        base_models=("shapes",),
        jumps="targeted",
        spacing="segments",
        absorbs_guidance=True,
        guidance_range=(3.0, 3.0),
        use="few_step",
        summary="Bundled few-step generator of `shapes`, distilled by `shortft distil`",
    ),
}


def check_shortcut(
    entry: ShortcutEntry,
    segments: int,
    guidance_scale: float | None,
    field: str,
    *,
    use: ShortcutUse = "shortcut",
    base_model: str | None = None,
) -> None:
    """Refuses a job that the shortcut was not made for, before anything is loaded.

    Raises UserError for another use, another base model of the catalog, a number of segments
    without a file, and a guidance outside the range that the shortcut stands for (None: it stands
    for itself, so any will do).
    """
    if entry.use not in {use, "both"}:
        raise UserError(
            field,
            f"it was distilled as a {_title(entry.use)}, not as a {_title(use)}",
            f"Choose one of {', '.join(names_of(use))}",
        )
    if base_model not in {None, *entry.base_models}:
        raise UserError(
            field,
            f"it belongs to {', '.join(entry.base_models)}, not to {base_model}",
            f"Choose another, or distil one for {base_model} with `shortft distil`",
        )
    if segments not in entry.files:
        known = ", ".join(map(str, sorted(entry.files)))
        raise UserError(
            field,
            f"it has no file for {segments} segments",
            f"Use {known} segments, or distil one for {segments} with `shortft distil`",
        )
    if entry.guidance_range is None or guidance_scale is None:
        return
    low, high = entry.guidance_range
    if not low <= guidance_scale <= high:
        allowed = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise UserError(
            field,
            f"it stands for guidance {allowed}, not {guidance_scale:g}",
            f"Use guidance {allowed}, or distil one for {guidance_scale:g} with `shortft distil`",
        )


def shortcut_borders(
    entry: ShortcutEntry, segments: int, train_timesteps: int = 1000
) -> tuple[int, ...]:
    """Timesteps that a jump may not cross; none where every jump, or an exact list, is trained."""
    return schedule.equal_borders(segments, train_timesteps) if entry.jumps == "parts" else ()


def names_of(use: ShortcutUse) -> tuple[str, ...]:
    """Shortcuts that serve this use."""
    return tuple(name for name, entry in SHORTCUTS.items() if entry.use in {use, "both"})


def _title(use: str) -> str:
    return "few-step model" if use == "few_step" else "shortcut"
