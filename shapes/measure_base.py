"""Measures `shapes-base` on prompts it never saw and writes `shapes/cards/base.json`."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from shapes.data import batch
from shapes.renderer import captions, draw_scenes
from shapes.training import STATE_FOLDER
from shortft_core import models
from shortft_core.generate import base_sampler, to_pil
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.oracle import reader
from shortft_core.oracle.reading import ATTRIBUTES, compare, total
from shortft_core.oracle.scene import parse
from shortft_core.spec import Source

log = logging.getLogger("shapes")

SEED: Final = 902
"""No training uses it."""
CARD: Final = Path(__file__).parent / "cards" / "base.json"
PICTURE: Final = Path(__file__).parent / "cards" / "samples.png"
CHUNK: Final = 40
GROUPS: Final = {
    "single": {"two_shapes": 0.0, "held_out": False, "count": 500},
    "pairs": {"two_shapes": 1.0, "held_out": False, "count": 350},
    "held_out_pairs": {"two_shapes": 0.3, "held_out": True, "count": 200},
}
"""Single-shape prompts, two-shape prompts, and prompts with color-kind pairs never trained."""


def load_base() -> StableDiffusion:
    """`shapes-base` as a job loads it."""
    model = models.load(Source(name="shapes"), device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(model, StableDiffusion)  # noqa: S101 - narrows the protocol to its family
    return model


@torch.no_grad()
def reconstruction_psnr(model: StableDiffusion, count: int = 512) -> float:
    """Mean PSNR in dB of images through the VAE and back."""
    values = []
    for step in range(count // 32):
        _, images, _ = batch(SEED, step, 32)
        latents = model.vae.encode(images * 2 - 1).latent_dist.mean
        decoded = model.decode(latents * model.vae.config.scaling_factor).clamp(0, 1)
        errors = (decoded - images).square().mean(dim=(1, 2, 3))
        values += (-10 * errors.log10()).tolist()
    return round(float(np.mean(values)), 2)


def prompts_of(group: str) -> list[str]:
    """The prompts of a group, with sizes and backgrounds as in training."""
    wanted = GROUPS[group]
    rng = np.random.default_rng((SEED, sorted(GROUPS).index(group)))
    scenes = draw_scenes(
        rng,
        int(wanted["count"]),
        held_out=bool(wanted["held_out"]),
        two_shapes=float(wanted["two_shapes"]),
    )
    return captions(rng, scenes)


def samples_of(model: StableDiffusion, group: str) -> tuple[list[str], Tensor]:
    """Prompts and their images on the full 50-step chain, kept so that a stopped run resumes."""
    prompts = prompts_of(group)
    folder = STATE_FOLDER / "samples" / model.fingerprint[:12]
    folder.mkdir(parents=True, exist_ok=True)
    sampler = base_sampler(model, batch_size=CHUNK)
    parts = []
    for start in range(0, len(prompts), CHUNK):
        path = folder / f"{group}-{start:05d}.safetensors"
        if not path.exists():
            chosen = prompts[start : start + CHUNK]
            images = sampler.images(chosen, range(SEED + start, SEED + start + len(chosen)))
            save_file({"images": images.contiguous()}, path)
            log.info("%s %d of %d", group, start + len(chosen), len(prompts))
        parts.append(load_file(path)["images"])
    return prompts, torch.cat(parts)


def agreement(prompts: list[str], images: Tensor) -> dict[str, float]:
    """Share of the asked attributes that the oracle sees, per attribute."""
    readings = reader.read(reader.load_reader().eval(), images)
    scenes = [scene for prompt in prompts if (scene := parse(prompt))]
    summed = total(compare(*pair) for pair in zip(readings, scenes, strict=True))
    rates = {attribute: summed.rate(attribute) for attribute in ATTRIBUTES}
    return {name: round(rate, 4) for name, rate in rates.items() if rate is not None}


def save_picture(prompts: list[str], images: Tensor, *, columns: int = 8, rows: int = 4) -> None:
    """The first samples as one picture: no selection."""
    from PIL import Image

    side = 128
    sheet = Image.new("RGB", (columns * side, rows * side))
    for index, picture in enumerate(to_pil(images[: columns * rows])):
        at = (index % columns * side, index // columns * side)
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), at)
    sheet.save(PICTURE)
    text = "\n".join(f"{i + 1}. {prompt}" for i, prompt in enumerate(prompts[: columns * rows]))
    PICTURE.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    argparse.ArgumentParser(description=__doc__).parse_args()
    model = load_base()
    started = time.monotonic()
    figures: dict[str, Any] = {
        "vae_psnr_db": reconstruction_psnr(model),
        "parameters": {
            name: sum(p.numel() for p in module.parameters())
            for name, module in (
                ("unet", model.denoiser),
                ("vae", model.vae),
                ("text_encoder", model.text_encoder),
            )
        },
        "guidance_scale": model.guidance_scale,
        "steps": 50,
        "seed": SEED,
        "model_sha256": model.fingerprint,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    for group in GROUPS:
        prompts, images = samples_of(model, group)
        figures[group] = agreement(prompts, images) | {"prompts": len(prompts)}
        if group == "single":
            save_picture(prompts, images)
    figures["minutes"] = round((time.monotonic() - started) / 60, 1)
    CARD.parent.mkdir(parents=True, exist_ok=True)
    CARD.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    log.info("%s", json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
