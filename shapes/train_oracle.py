"""Trains the oracle: a detector of shapes, colors, sizes, centers and background."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from shapes.command_line import folders
from shapes.contrast import reconstructor
from shapes.data import batch
from shapes.degradations import soften
from shapes.renderer import SceneBatch
from shapes.training import Recipe, fit
from shortft_core.oracle.reader import CELL, FOLDER, Detections, Reader
from shortft_core.oracle.scene import COLOR_NAMES, KINDS, SIZE_NAMES

WIDTHS: Final = (24, 32, 64, 96)
RECIPE: Final = Recipe(
    name="oracle", steps=1400, learning_rate=3e-3, seed=301, weight_decay=0.02, ema_decay=0.995
)
BATCH: Final = 64
VAE_EVERY: Final = 3
"""The VAE costs more than the step itself."""


def build() -> Reader:
    """A new network from the recipe's seed."""
    torch.manual_seed(RECIPE.seed)
    return Reader(WIDTHS)


def detection_loss(found: Detections, scenes: SceneBatch) -> Tensor:
    """Presence in all cells; kind, color, size and center in the cells that hold a center."""
    image, place = np.nonzero(np.stack([scenes.relation >= -1, scenes.relation >= 0], axis=1))
    center = torch.from_numpy(scenes.center[image, place])
    column, row = (center / CELL).long().unbind(1)
    cells = torch.from_numpy(image), row, column
    present = torch.zeros_like(found.presence)
    present[cells] = 1.0
    presence = F.binary_cross_entropy_with_logits(found.presence, present, reduction="none")
    named = (
        (found.kind, scenes.kind),
        (found.color, scenes.color),
        (found.size, scenes.size),
    )
    attributes = [
        F.cross_entropy(logits[cells], torch.from_numpy(truth[image, place]))
        for logits, truth in named
    ]
    away = F.smooth_l1_loss(found.center[cells] / CELL, center / CELL)
    background = F.cross_entropy(found.background, torch.from_numpy(scenes.background))
    return presence.sum((1, 2)).mean() + sum(attributes) + 2 * away + background


def train(folder: Path, vae_folder: Path) -> None:
    """Trains on fresh softened scenes, one in twelve through the VAE; stores it in fp16."""
    network = build()
    reconstruct = reconstructor(vae_folder)

    def loss_at(step: int) -> Tensor:
        scenes, images, _ = batch(RECIPE.seed, step, BATCH)
        rng = np.random.default_rng((RECIPE.seed, step, 1))
        softened = soften(images, rng, reconstruct if step % VAE_EVERY == 0 else None)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(softened)
        return detection_loss(found, scenes)

    fit(RECIPE, network, loss_at)
    save(network, folder)


def save(network: Reader, folder: Path) -> None:
    """Writes `model.safetensors` in fp16 and the `config.json` that its loader checks."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    config = {
        "widths": WIDTHS,
        "kinds": KINDS,
        "colors": COLOR_NAMES,
        "sizes": SIZE_NAMES,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    to, vae = folders(__doc__, FOLDER)
    train(to, vae)


if __name__ == "__main__":
    main()
