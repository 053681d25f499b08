"""Adapter folders: one kohya-keyed file per branch, and `shortft.json` on how to run them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortft_core.adapters import AdapterBank
from shortft_core.errors import ArtifactError, UserError
from shortft_core.generate import Sampler
from shortft_core.models import DiffusionModel
from shortft_core.schedule import Evaluation
from shortft_core.spec import Source, Spec

CARD_FILE: Final = "shortft.json"
_PREFIX: Final = "lora_unet_"


class Origin(Spec):
    """What an adapter was made from."""

    base_model: Source
    base_sha256: str
    """Fingerprint of the denoiser that was tuned."""
    method: str
    guidance_scale: float
    rewards: tuple[str, ...]
    spec_sha256: str


class AdapterCard(Origin):
    """`shortft.json`: the origin, the grid and the stacks that the branch files belong to."""

    version: Literal[1] = 1
    timesteps: tuple[int, ...]
    """The grid, first step first; no other grid is served."""
    next_timesteps: tuple[int, ...]
    stacks: tuple[tuple[int, ...], ...]
    """Branches that act at each timestep."""
    rank: int
    branches: tuple[str, ...]
    """File of each branch."""
    sha256: tuple[str, ...]
    """Hash of each file."""

    @property
    def plan(self) -> tuple[Evaluation, ...]:
        """The chain this adapter serves."""
        rows = zip(self.timesteps, self.next_timesteps, self.stacks, strict=True)
        return tuple(Evaluation(t, s, "base", stack, with_gradient=False) for t, s, stack in rows)


def save_adapter(
    folder: Path,
    bank: AdapterBank,
    plan: Sequence[Evaluation],
    origin: Origin,
    *,
    dtype: torch.dtype = torch.float16,
) -> AdapterCard:
    """Writes branches and card beside `folder` and swaps them in: old or new, never a mix."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    files = [part / f"branch_{branch}.safetensors" for branch in range(1, bank.branches + 1)]
    for branch, path in enumerate(files, start=1):
        save_file(_kohya(bank, branch, dtype), path, metadata=_header(bank))
    card = AdapterCard(
        **origin.model_dump(),
        timesteps=tuple(e.timestep for e in plan),
        next_timesteps=tuple(e.next_timestep for e in plan),
        stacks=tuple(e.branches for e in plan),
        rank=bank.rank,
        branches=tuple(path.name for path in files),
        sha256=tuple(_sha256(path) for path in files),
    )
    (part / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _swap_in(part, folder)
    return card


def _swap_in(part: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def read_card(folder: Path) -> AdapterCard:
    """The card of an adapter folder; UserError if there is none."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise UserError(
            "adapter", f"{folder} holds no {CARD_FILE}", "Give the folder of an adapter"
        )
    try:
        return AdapterCard.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ArtifactError(f"{path} is not an adapter card: {error}") from error


def load_adapter(
    folder: Path, model: DiffusionModel, *, batch_size: int = 4, scale: float = 1.0
) -> Sampler:
    """The tuned model on its own grid.

    Raises UserError for another base model and ArtifactError for torn or foreign files.
    """
    card = read_card(folder)
    if card.base_sha256 != model.fingerprint:
        raise UserError(
            "adapter",
            f"{folder} was trained on another base model",
            f"Load it on {card.base_model}",
        )
    tensors = [
        _read_branch(folder / name, expected)
        for name, expected in zip(card.branches, card.sha256, strict=True)
    ]
    bank = AdapterBank(model.denoiser, branches=len(card.branches), rank=card.rank)
    try:
        for branch, weights in enumerate(tensors, start=1):
            bank.load_weights(branch, _from_kohya(weights, bank))
    except ArtifactError:
        bank.detach()
        raise
    bank.set_scale(scale)
    return Sampler(
        model=model,
        plan=card.plan,
        guidance_scale=card.guidance_scale,
        bank=bank,
        batch_size=batch_size,
        adapter={"adapter_sha256": ",".join(card.sha256), "adapter_scale": str(scale)},
    )


def _read_branch(path: Path, expected: str) -> dict[str, Tensor]:
    if _sha256(path) != expected:
        raise ArtifactError(f"{path} changed after it was written")
    return load_file(path)


def _kohya(bank: AdapterBank, branch: int, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = {}
    for name, (down, up) in bank.weights(branch).items():
        key = _PREFIX + name.replace(".", "_")
        tensors[f"{key}.lora_down.weight"] = down.to("cpu", dtype).contiguous()
        tensors[f"{key}.lora_up.weight"] = up.to("cpu", dtype).contiguous()
        # Alpha equals the rank: readers that omit it and readers that apply it agree.
        tensors[f"{key}.alpha"] = torch.tensor(float(bank.rank), dtype=dtype)
    return tensors


def _from_kohya(tensors: dict[str, Tensor], bank: AdapterBank) -> dict[str, tuple[Tensor, Tensor]]:
    keys = {name: _PREFIX + name.replace(".", "_") for name in bank.layers}
    try:
        return {
            name: (tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"])
            for name, key in keys.items()
        }
    except KeyError as error:
        raise ArtifactError(f"the branch file lacks {error.args[0]}") from error


def _header(bank: AdapterBank) -> dict[str, str]:
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.prediction_type": "epsilon",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(bank.rank),
        "ss_network_alpha": str(bank.rank),
        "shortft.layers": json.dumps(sorted(bank.layers)),
    }


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
