"""Adapter folders: one kohya-keyed file per branch, and `shortft.json` on how to run them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from shortft_core.adapter_card import (
    CARD_FILE,
    AdapterCard,
    NoiseSchedule,
    Origin,
    read_card,
    readme,
)
from shortft_core.adapters import AdapterBank
from shortft_core.artifacts import file_sha256
from shortft_core.errors import ArtifactError, UserError
from shortft_core.generate import Sampler
from shortft_core.lora_files import KOHYA_PREFIX, module_key, write_kohya, write_peft
from shortft_core.merged import serving_stacks
from shortft_core.models import DiffusionModel
from shortft_core.schedule import CLEAN, Evaluation, ddim_grid
from shortft_core.shortcuts import few_step, with_lora
from shortft_core.spec import Source

README_FILE: Final = "README.md"
PEFT_FOLDER: Final = "peft"


def noise_schedule(model: DiffusionModel, plan: Sequence[Evaluation]) -> NoiseSchedule:
    """The noise schedule of a model at the timesteps of a chain."""
    return NoiseSchedule(
        train_timesteps=model.train_timesteps,
        steps_offset=model.steps_offset,
        alphas_cumprod=tuple(model.alphas_cumprod[e.timestep].item() for e in plan),
    )


def save_adapter(
    folder: Path,
    bank: AdapterBank,
    plan: Sequence[Evaluation],
    origin: Origin,
    *,
    dtype: torch.dtype = torch.float16,
) -> AdapterCard:
    """Writes branches and card beside `folder` and swaps them in: old or new, never a mix.

    Files round-trip exactly in `dtype`. Beside the kohya files lie the same branches for peft, and
    a README that says how to run them in diffusers.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    files = [part / f"branch_{branch}.safetensors" for branch in range(1, bank.branches + 1)]
    for branch, path in enumerate(files, start=1):
        weights = bank.weights(branch)
        write_kohya(path, weights, dtype=dtype, header=_header(bank, branch, plan, origin))
        write_peft(part / PEFT_FOLDER / path.stem, weights, dtype=dtype)
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
    (part / README_FILE).write_text(readme(card), encoding="utf-8")
    _swap_in(part, folder)
    return card


def _swap_in(part: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class ReadAdapter:
    """An adapter folder in memory, checked against its hashes and the model it is for."""

    card: AdapterCard
    branches: tuple[Mapping[str, Tensor], ...]
    """Tensors of each branch file, by kohya's keys."""

    def weights(self, bank: AdapterBank) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
        """What each branch gives the layers of a bank; raises ArtifactError for other layers."""
        for tensors in self.branches:
            yield _from_kohya(tensors, bank)


def read_adapter(folder: Path, model: DiffusionModel, *, steps: int | None = None) -> ReadAdapter:
    """Reads an adapter folder for a base model.

    Raises UserError for another base model, noise schedule or number of steps, and ArtifactError
    for torn or foreign files.
    """
    card = read_card(folder)
    _check_base(card, folder, model)
    _check_grid(card, folder, model, steps)
    branches = [_read_branch(folder, card, index) for index in range(len(card.branches))]
    return ReadAdapter(card, tuple(branches))


def load_adapter(
    folder: Path,
    model: DiffusionModel,
    *,
    batch_size: int = 4,
    scale: float = 1.0,
    steps: int | None = None,
) -> Sampler:
    """The tuned model on its own grid, the only one it serves.

    Where a few-step model was tuned, or another LoRA was merged first, that is done again on a copy
    of the model. Raises what `read_adapter` raises.
    """
    read = read_adapter(folder, model, steps=steps)
    card = read.card
    model = foundation(card, model)
    bank = AdapterBank(model.denoiser, branches=len(card.branches), rank=card.rank)
    try:
        for branch, weights in enumerate(read.weights(bank), start=1):
            bank.load_weights(branch, weights)
    except ArtifactError:
        bank.detach()
        raise
    bank.set_scale(scale)
    return Sampler(
        model=model,
        plan=card.plan,
        guidance_scale=card.guidance_scale,
        bank=bank,
        stacks=serving_stacks(bank, card.plan),
        batch_size=batch_size,
        adapter=_provenance(card, scale),
    )


def _provenance(card: AdapterCard, scale: float) -> dict[str, str]:
    """What identifies the adapter and its chain in the pictures it makes."""
    found = {"adapter_sha256": ",".join(card.sha256), "adapter_scale": str(scale)}
    if card.few_step is not None:
        found["scheduler"] = f"ddim {','.join(map(str, card.timesteps))}"
    return found


def _check_base(card: AdapterCard, folder: Path, model: DiffusionModel) -> None:
    if card.base_sha256 != model.fingerprint:
        raise UserError(
            "adapter",
            f"{folder} was trained on another base model",
            f"Load it on {card.base_model}",
        )


def _check_grid(card: AdapterCard, folder: Path, model: DiffusionModel, steps: int | None) -> None:
    """The branches fit the noise levels that they were trained at, and no others."""
    length = len(card.timesteps)
    if steps is not None and steps != length:
        raise UserError(
            "steps", f"{folder} serves a chain of {length} steps only", f"Use {length} steps"
        )
    if card.next_timesteps != (*card.timesteps[1:], CLEAN) or len(card.stacks) != length:
        raise ArtifactError(f"{folder / CARD_FILE} holds no whole chain")
    given = card.noise_schedule
    fits = max(card.timesteps) < model.train_timesteps and min(card.timesteps) >= 0
    if fits and given is not None:
        fits = given.agrees_with(noise_schedule(model, card.plan))
    if fits and card.few_step is None:
        fits = card.timesteps == ddim_grid(length, model.train_timesteps, model.steps_offset)
    if not fits:
        raise UserError(
            "adapter",
            f"{folder} was trained on a grid that the scheduler of this model does not give",
            f"Load it on {card.base_model} with the scheduler it was trained with",
        )


def foundation(card: AdapterCard, model: DiffusionModel) -> DiffusionModel:
    """The model that the branches sit on: the base, or what was merged into a copy of it first."""
    if card.init_adapter is not None:
        model, sha256 = with_lora(card.init_adapter, model)
        _check_same(card.init_adapter, sha256, card.init_adapter_sha256)
    if card.few_step is not None:
        merged = few_step(card.few_step, model, card.segments or len(card.timesteps))
        _check_same(card.few_step, merged.sha256, card.few_step_sha256)
        model = merged.model
    return model


def _check_same(source: Source, found: str | None, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ArtifactError(f"{source} is no longer the file that this adapter was trained on")


def _read_branch(folder: Path, card: AdapterCard, index: int) -> dict[str, Tensor]:
    path = folder / card.branches[index]
    if _sha256(path) != card.sha256[index]:
        raise ArtifactError(f"{path} changed after it was written")
    tensors = load_file(path)
    ranks = {len(t) for name, t in tensors.items() if name.endswith(".lora_down.weight")}
    if ranks != {card.rank}:
        raise ArtifactError(f"{path} has rank {sorted(ranks)}, its card says {card.rank}")
    return tensors


def _from_kohya(
    tensors: Mapping[str, Tensor], bank: AdapterBank
) -> dict[str, tuple[Tensor, Tensor]]:
    keys = {name: KOHYA_PREFIX + module_key(name) for name in bank.layers}
    try:
        return {
            name: (tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"])
            for name, key in keys.items()
        }
    except KeyError as error:
        raise ArtifactError(f"the branch file lacks {error.args[0]}") from error


def _header(
    bank: AdapterBank, branch: int, plan: Sequence[Evaluation], origin: Origin
) -> dict[str, str]:
    """What image tools show of a branch; the values are strings by the format's rule."""
    active = [e.timestep for e in plan if branch in e.branches]
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": f"{origin.method} branch {branch} of {bank.branches}",
        "modelspec.prediction_type": "epsilon",
        "modelspec.timestep_range": f"{min(active)},{max(active)}" if active else "",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(bank.rank),
        "ss_network_alpha": str(bank.rank),
        "ss_base_model_version": "sd_v1",
        "ss_output_name": f"branch_{branch}",
        "shortft.layers": json.dumps(sorted(bank.layers)),
        "shortft.timesteps": json.dumps(active),
    }


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    return file_sha256(path)
