"""LoRA files of other tools and of ours: kohya, diffusers and peft keys, read, merged, written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from shortft_core.adapters import carries_bank
from shortft_core.errors import ArtifactError, WeightsError
from shortft_core.weights import read_tensors

KOHYA_PREFIX: Final = "lora_unet_"
PEFT_PREFIX: Final = "base_model.model."
PEFT_CONFIG: Final = "adapter_config.json"
PEFT_WEIGHTS: Final = "adapter_model.safetensors"
_ENDINGS: Final = {
    ".lora_down.weight": "down",
    ".lora_A.weight": "down",
    ".lora.down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_B.weight": "up",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}
_UNET_PREFIXES: Final = (KOHYA_PREFIX, PEFT_PREFIX, "unet.")
_TEXT_PREFIXES: Final = ("lora_te", "text_encoder")
_TRANSFORMER_PREFIXES: Final = ("transformer.", "lora_transformer_")
_DIFFUSERS_METADATA: Final = "lora_adapter_metadata"
# Variants of peft that are more than W + (alpha / r) B A.
_PLAIN: Final[Mapping[str, object]] = {
    "use_dora": False,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "bias": "none",
    "alpha_pattern": {},
    "rank_pattern": {},
}


@dataclass(frozen=True, slots=True)
class LowRank:
    """The increment of one module, scale B A (Hu et al., 2021)."""

    down: Tensor
    """A: [rank, in] of a Linear, [rank, in, kh, kw] of a convolution."""
    up: Tensor
    """B: [out, rank], or [out, rank, 1, 1]."""
    scale: float
    """Alpha over rank."""


def module_key(name: str) -> str:
    """What a module is called in every file: its path with underscores, as kohya writes it."""
    return name.replace(".", "_")


def read_lora(path: Path, *, field: str, scale: float | None = None) -> dict[str, LowRank]:
    """Module key -> increment, from kohya, diffusers or peft keys.

    The scale is alpha / rank wherever the file, its header or the `adapter_config.json` beside it
    states alpha, else `scale`: readers that assume 1 apply files such as Hyper-SD's eight times too
    strongly. Raises MissingWeightsError; WeightsError for other keys, a text encoder's or a
    transformer's above all, for a missing half, and where no scale is known.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(path, field=field).items():
        key, part = _parse(name, path, field)
        parts.setdefault(key, {})[part] = tensor
    alpha_over_rank = _stated_scale(path, field)
    stated = scale if alpha_over_rank is None else alpha_over_rank
    return {key: _low_rank(key, found, stated, path, field) for key, found in parts.items()}


def _parse(name: str, path: Path, field: str) -> tuple[str, str]:
    """Module key and part of one tensor."""
    if name.startswith(_TEXT_PREFIXES):
        raise WeightsError(
            field, f"{path} also tunes a text encoder ({name})", "Give a LoRA of the UNet only"
        )
    if name.startswith(_TRANSFORMER_PREFIXES):
        raise WeightsError(
            field,
            f"{path} belongs to a transformer such as SD 3 or FLUX ({name})",
            "Give a LoRA of the UNet of this base model",
        )
    for ending, part in _ENDINGS.items():
        if name.endswith(ending):
            module = name.removesuffix(ending)
            for prefix in _UNET_PREFIXES:
                module = module.removeprefix(prefix)
            return module_key(module), part
    raise WeightsError(
        field,
        f"{path} holds {name}, which is no part of a plain LoRA",
        "Give a file of down and up weights, as kohya, diffusers or peft save them",
    )


def _low_rank(
    key: str, found: Mapping[str, Tensor], stated: float | None, path: Path, field: str
) -> LowRank:
    if not {"down", "up"} <= found.keys():
        raise WeightsError(field, f"{path} holds only {', '.join(found)} of {key}", "Save it whole")
    down, up = found["down"], found["up"]
    if down.ndim < 2 or up.ndim < 2 or up.shape[1] != down.shape[0] or up.shape[2:].numel() != 1:
        raise WeightsError(
            field,
            f"{path} holds {tuple(down.shape)} and {tuple(up.shape)} for {key}, which do not join",
            "Save it again",
        )
    if "alpha" in found:
        return LowRank(down, up, found["alpha"].item() / len(down))
    if stated is None:
        raise WeightsError(
            field,
            f"{path} states no alpha, so its strength is unknown",
            "Save it with alpha, which equals the rank at strength 1",
        )
    return LowRank(down, up, stated)


def _stated_scale(path: Path, field: str) -> float | None:
    """Alpha over rank from the header that diffusers writes, or from peft's configuration."""
    config: dict[str, object] = {}
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_DIFFUSERS_METADATA, "{}")
        stated = _json_object(header, path, field)
        config = {name.removeprefix("unet."): value for name, value in stated.items()}
    beside = path.parent / PEFT_CONFIG
    if path.name == PEFT_WEIGHTS and beside.is_file():
        config = _json_object(beside.read_text(encoding="utf-8"), beside, field)
    for name, plain in _PLAIN.items():
        if config.get(name) and config[name] != plain:
            raise WeightsError(
                field, f"{path} was trained with {name} {config[name]!r}", "Give a plain LoRA"
            )
    alpha, rank = config.get("lora_alpha"), config.get("r")
    if isinstance(alpha, int | float) and isinstance(rank, int):
        return alpha / rank
    return None


def _json_object(text: str, path: Path, field: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise WeightsError(field, f"{path} holds broken JSON ({error})", "Save it again") from error
    if not isinstance(content, dict):
        raise WeightsError(field, f"{path} holds no JSON object", "Save it again")
    return content


@torch.no_grad()
def merge_into(
    denoiser: nn.Module, deltas: Mapping[str, LowRank], scale: float = 1.0, *, field: str = "lora"
) -> None:
    """W + scale (alpha / rank) B A, added in at least fp32 and rounded once to W's precision.

    Raises ArtifactError if a bank is attached, WeightsError for a key without a module of fitting
    shape and for a sum that is not finite; nothing is changed then.
    """
    if carries_bank(denoiser):
        raise ArtifactError("a bank is attached to the denoiser: merge LoRA files before it")
    layers = _layers(denoiser)
    for key, delta in deltas.items():
        _check_fit(key, delta, layers, field)
    sums = {key: _sum(layers[key].weight, delta, scale) for key, delta in deltas.items()}
    for key, weight in sums.items():
        if not torch.isfinite(weight).all():
            raise WeightsError(
                field, f"{key} is not finite in {weight.dtype} once merged", "Use fp32"
            )
    for key, weight in sums.items():
        layers[key].weight.data = weight


def _layers(denoiser: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    return {
        module_key(name): module
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def _check_fit(
    key: str, delta: LowRank, layers: Mapping[str, nn.Linear | nn.Conv2d], field: str
) -> None:
    remedy = "Use a LoRA of this base model"
    if key not in layers:
        raise WeightsError(field, f"{key} names no Linear or convolution of this denoiser", remedy)
    shape = layers[key].weight.shape
    ours = (shape[0], *_kernel(shape[1:]))
    theirs = (len(delta.up), *_kernel(delta.down.shape[1:]))
    if ours != theirs:
        raise WeightsError(field, f"{key} has shape {theirs} instead of {ours}", remedy)


def _kernel(shape: torch.Size) -> tuple[int, ...]:
    """Inputs and kernel; a 1 x 1 convolution counts as the Linear it is."""
    return tuple(shape[:1]) if shape[1:].numel() == 1 else tuple(shape)


def _sum(weight: Tensor, delta: LowRank, scale: float) -> Tensor:
    precision = torch.promote_types(weight.dtype, torch.float32)
    down, up = (part.to(weight.device, precision).flatten(1) for part in (delta.down, delta.up))
    base = weight.to(precision).flatten(1)
    total = torch.addmm(base, up, down, alpha=scale * delta.scale)
    return total.reshape(weight.shape).to(weight.dtype)


def write_kohya(
    path: Path,
    weights: Mapping[str, tuple[Tensor, Tensor]],
    *,
    dtype: torch.dtype,
    header: Mapping[str, str],
) -> None:
    """Writes module path -> (down, up) with a true alpha, which image tools and diffusers read."""
    tensors = {}
    for name, (down, up) in weights.items():
        key = KOHYA_PREFIX + module_key(name)
        tensors[f"{key}.lora_down.weight"] = down.to("cpu", dtype).contiguous()
        tensors[f"{key}.lora_up.weight"] = up.to("cpu", dtype).contiguous()
        # Alpha equals the rank: readers that omit it and readers that apply it agree.
        tensors[f"{key}.alpha"] = torch.tensor(float(len(down)), dtype=dtype)
    save_file(tensors, path, metadata=dict(header))


def write_peft(
    folder: Path, weights: Mapping[str, tuple[Tensor, Tensor]], *, dtype: torch.dtype
) -> None:
    """Writes the folder that `peft.PeftModel.from_pretrained` reads on the same denoiser."""
    from peft import LoraConfig

    folder.mkdir(parents=True)
    rank = len(next(iter(weights.values()))[0])
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=sorted(weights))
    config.inference_mode = True
    config.save_pretrained(str(folder))
    tensors = {}
    for name, (down, up) in weights.items():
        tensors[f"{PEFT_PREFIX}{name}.lora_A.weight"] = down.to("cpu", dtype).contiguous()
        tensors[f"{PEFT_PREFIX}{name}.lora_B.weight"] = up.to("cpu", dtype).contiguous()
    save_file(tensors, folder / PEFT_WEIGHTS, metadata={"format": "pt"})
