"""Trains the VAE of `shapes-base`: three levels, latents 4 x 16 x 16 of a 64-pixel image."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from shapes.data import batch
from shapes.training import Recipe, fit

CONFIG: Final = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (32, 48, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 64,
}
WHOLE: Final = Recipe(name="vae", steps=2400, learning_rate=8e-4, seed=101, weight_decay=0.0)
FOCUS: Final = Recipe(name="vae-focus", steps=1200, learning_rate=6e-4, seed=102, weight_decay=0.0)
"""The plain loss leaves small shapes round, for they are few pixels; here they are half of it."""
BATCH: Final = 16
KL_WEIGHT: Final = 5e-5


def build() -> AutoencoderKL:
    """A new VAE from the recipe's seed."""
    torch.manual_seed(WHOLE.seed)
    return AutoencoderKL(**CONFIG)


def reconstruction_errors(decoded: Tensor, images: Tensor) -> Tensor:
    """L1 + L1 of the image gradients + squared error [B, H, W] of [-1, 1] images."""
    difference = decoded.float() - images
    across = F.pad(difference.diff(dim=-1).abs(), (0, 1))
    down = F.pad(difference.diff(dim=-2).abs(), (0, 0, 0, 1))
    return (difference.abs() + across + down + difference.square()).mean(dim=1)


def near_shapes(images: Tensor) -> Tensor:
    """Mask [B, H, W] of the shapes and two pixels around them; corners are always background."""
    foreground = (images - images[:, :, :1, :1]).abs().amax(dim=1, keepdim=True) > 0.05
    return F.max_pool2d(foreground.float(), 5, stride=1, padding=2)[:, 0]


def focused_mean(errors: Tensor, mask: Tensor) -> Tensor:
    """Mean error of the image plus mean error near its shapes."""
    return errors.mean() + (errors * mask).sum() / mask.sum()


def train(folder: Path) -> None:
    """Trains encoder and decoder together; stores the VAE with its measured scaling factor."""
    vae = build()
    fit(WHOLE, vae, lambda step: _loss(vae, WHOLE, step, focused=False))
    fit(FOCUS, vae, lambda step: _loss(vae, FOCUS, step, focused=True))
    vae.register_to_config(scaling_factor=_measured_scaling_factor(vae))
    vae.save_pretrained(folder)


def _loss(vae: AutoencoderKL, recipe: Recipe, step: int, *, focused: bool) -> Tensor:
    _, images, _ = batch(recipe.seed, step, BATCH)
    images = images * 2 - 1
    generator = torch.Generator().manual_seed(step)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample(generator)).sample
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    errors = reconstruction_errors(decoded, images)
    loss: Tensor = focused_mean(errors, near_shapes(images)) if focused else errors.mean()
    return loss.add(kl, alpha=KL_WEIGHT)


@torch.no_grad()
def _measured_scaling_factor(vae: AutoencoderKL) -> float:
    _, images, _ = batch(WHOLE.seed, WHOLE.steps, 256)
    latents = vae.encode(images * 2 - 1).latent_dist.mean
    deviation: float = latents.std().item()
    return round(1.0 / deviation, 5)


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", dest="folder", type=Path, default=Path("shapes/out/vae"))
    train(parser.parse_args().folder)


if __name__ == "__main__":
    main()
