"""Small real adapters of the bundled model, and requests for pictures with them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from shortft_core import models, schedule
from shortft_core.adapter_card import CARD_FILE, Origin
from shortft_core.adapters import AdapterBank
from shortft_core.export import noise_schedule, save_adapter
from shortft_core.spec import Source
from shortft_core.spec.generation import GenerationSpec, ServedAdapter

BASE = Source(name="shapes")
STEPS = 4
GUIDANCE = 3.0
CPU = torch.device("cpu")


def write_adapter(
    folder: Path, *, seed: int = 0, rank: int = 4, segments: int = 2, steps: int = STEPS
) -> Path:
    """A folder as a job publishes it; its branches are random and change every picture."""
    model = models.load(BASE, device=CPU, dtype=torch.float32)
    plan = schedule.inference_plan(
        steps, segments, train_timesteps=model.train_timesteps, offset=model.steps_offset
    )
    bank = AdapterBank(model.denoiser, branches=segments, rank=rank)
    generator = torch.Generator().manual_seed(seed)
    for branch in range(1, segments + 1):
        for weight in bank.parameters(branch):
            weight.data.normal_(0, 0.15, generator=generator)
    origin = Origin(
        base_model=BASE,
        base_sha256=model.fingerprint,
        method="shortft",
        guidance_scale=GUIDANCE,
        rewards=("symmetry",),
        spec_sha256="0" * 64,
        noise_schedule=noise_schedule(model, plan),
        segments=segments,
    )
    save_adapter(folder, bank, plan, origin)
    return folder


def served(folder: Path, **fields: Any) -> ServedAdapter:
    """How a request names the adapter of a folder."""
    card = hashlib.sha256((folder / CARD_FILE).read_bytes()).hexdigest()
    named = {
        "id": f"adp_{folder.name}",
        "prefix": f"adapters/{folder.name}/",
        "card_sha256": card,
    }
    return ServedAdapter(**{**named, **fields})


def asked(*prompts: str, **fields: Any) -> GenerationSpec:
    """A request; seeds count from 7 unless they are given."""
    given = {"base_model": BASE, "steps": STEPS, "guidance_scale": GUIDANCE}
    seeds = tuple(range(7, 7 + len(prompts)))
    return GenerationSpec(prompts=prompts, **{**given, "seeds": seeds, **fields})
