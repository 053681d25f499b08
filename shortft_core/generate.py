"""From prompts and seeds to images on the full chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from shortft_core.adapters import AdapterBank, Stacks
from shortft_core.denoise import denoise
from shortft_core.errors import DivergedError
from shortft_core.merged import WeightSets, serving_stacks
from shortft_core.models import DiffusionModel
from shortft_core.schedule import Evaluation, base_plan, ddim_grid

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """A model, optionally with an adapter, on its chain."""

    model: DiffusionModel
    plan: tuple[Evaluation, ...]
    guidance_scale: float
    bank: AdapterBank | None = None
    stacks: Stacks | None = None
    """What serves the branches; by default weights merged from the bank anew at every call of
    `images`, because a bank may still learn. The bank itself is the unfused reference."""
    batch_size: int = 4
    size: tuple[int, int] | None = None
    """(height, width) in pixels; by default what the model was trained for."""
    adapter: Mapping[str, str] = field(default_factory=dict)
    """What identifies the adapter, for the provenance of its images."""

    @torch.no_grad()
    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        before_batch: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] on the CPU; each depends on its prompt and seed alone.

        `before_batch` may raise, which ends the work.
        """
        stacks = self._serving_stacks()
        batches = zip(
            _chunks(prompts, self.batch_size), _chunks(seeds, self.batch_size), strict=True
        )
        with stacks.held() if isinstance(stacks, WeightSets) else nullcontext():
            parts = []
            for batch in batches:
                before_batch()
                parts.append(self.model.decode(self._latents(*batch, stacks)).clamp(0, 1).cpu())
        return torch.cat(parts)

    def _serving_stacks(self) -> Stacks | None:
        if self.stacks is not None or self.bank is None:
            return self.stacks
        try:
            return serving_stacks(self.bank, self.plan)
        except DivergedError:
            # A run whose weights are no longer finite is evaluated all the same: its images and
            # scores are NaN, which is what raises the alarm.
            return self.bank

    def _latents(
        self, prompts: Sequence[str], seeds: Sequence[int], stacks: Stacks | None
    ) -> Tensor:
        return denoise(
            self.plan,
            prompts,
            seeds,
            model=self.model,
            bank=stacks,
            guidance_scale=self.guidance_scale,
            size=self.size,
        )

    def describe(self, prompt: str, seed: int) -> dict[str, str]:
        """Provenance of one image: enough to make it again."""
        return {
            "prompt": prompt,
            "seed": str(seed),
            "steps": str(len(self.plan)),
            "guidance_scale": str(self.guidance_scale),
            "scheduler": "ddim-leading",
            "model_sha256": self.model.fingerprint,
            **self.adapter,
        }


def base_sampler(
    model: DiffusionModel,
    *,
    steps: int = 50,
    guidance_scale: float | None = None,
    batch_size: int = 4,
    size: tuple[int, int] | None = None,
) -> Sampler:
    """The untuned model on the full DDIM chain."""
    return Sampler(
        model=model,
        plan=base_plan(steps, train_timesteps=model.train_timesteps, offset=model.steps_offset),
        guidance_scale=model.guidance_scale if guidance_scale is None else guidance_scale,
        batch_size=batch_size,
        size=size,
    )


def untuned(model: DiffusionModel, tuned: Sampler) -> Sampler:
    """The base model on the adapter's chain, or on its own where a few-step model was tuned."""
    grid = ddim_grid(len(tuned.plan), model.train_timesteps, model.steps_offset)
    if tuple(evaluation.timestep for evaluation in tuned.plan) == grid:
        return replace(tuned, model=model, bank=None, stacks=None, adapter={})
    return base_sampler(model, batch_size=tuned.batch_size, size=tuned.size)


def _chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def to_pil(images: Tensor) -> list[Image.Image]:
    """8-bit pictures of images [B, 3, H, W] in [0, 1], rounded as diffusers does; NaN is black."""
    pixels = (images.nan_to_num().permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    return [Image.fromarray(array) for array in pixels]


def png_bytes(picture: Image.Image, provenance: Mapping[str, str]) -> bytes:
    """A PNG that carries its provenance as text chunks."""
    chunks = PngInfo()
    for key, value in provenance.items():
        chunks.add_itxt(key, value)
    buffer = BytesIO()
    picture.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures of one height as one."""
    joined = Image.new("RGB", (left.width + right.width, left.height))
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width, 0))
    return joined


def save_all(
    sampler: Sampler,
    prompts: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    *,
    base: Sampler | None = None,
) -> Iterator[Path]:
    """Generates one PNG per prompt and seed into the folder, a batch at a time.

    With `base`, its picture of the same prompt and seed stands at the left of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(enumerate(zip(prompts, seeds, strict=True)))
    for rows in _chunks(wanted, sampler.batch_size):
        inputs = [prompt for _, (prompt, _) in rows], [seed for _, (_, seed) in rows]
        pictures = to_pil(sampler.images(*inputs))
        if base is not None:
            pictures = list(map(side_by_side, to_pil(base.images(*inputs)), pictures))
        for picture, (index, (prompt, seed)) in zip(pictures, rows, strict=True):
            provenance = sampler.describe(prompt, seed)
            if base is not None:
                provenance["left"] = f"base model {base.model.fingerprint}, {len(base.plan)} steps"
            path = folder / f"{index:04d}-{seed}.png"
            path.write_bytes(png_bytes(picture, provenance))
            yield path
