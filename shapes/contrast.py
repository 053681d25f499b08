"""What the two CLIPs of this world share: their contrastive loss and their batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from shapes.data import batch
from shapes.degradations import soften
from shapes.hard_negatives import wrong_captions
from shapes.renderer import SceneBatch
from shapes.training import Recipe
from shortft_core.oracle.reader import CELL
from shortft_core.oracle.scene import COLOR_NAMES, KINDS, SIZE_NAMES

HARD_NEGATIVES: Final = 2
MAX_LOGIT_SCALE: Final = float(np.log(100.0))
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)


def normalize(images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] as every CLIP expects them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


@dataclass(frozen=True, slots=True)
class ContrastBatch:
    """One step's scenes, softened images, true captions and HARD_NEGATIVES false ones for each."""

    scenes: SceneBatch
    images: Tensor
    captions: list[str]
    wrong: list[str]


def contrast_batch(
    recipe: Recipe,
    step: int,
    count: int,
    reconstruct: Callable[[Tensor], Tensor] | None,
    *,
    two_shapes: float = 0.4,
) -> ContrastBatch:
    """The batch of one step, a function of (seed, step); `reconstruct` is the VAE's softness."""
    scenes, images, captions = batch(recipe.seed, step, count, two_shapes=two_shapes)
    rng = np.random.default_rng((recipe.seed, step, 1))
    return ContrastBatch(
        scenes,
        soften(images, rng, reconstruct),
        captions,
        wrong_captions(rng, captions, HARD_NEGATIVES),
    )


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """InfoNCE of Radford et al. 2021, with further false captions for each image.

    `images` [B, D]; `texts` [(1 + HARD_NEGATIVES) B, D], the true ones first.
    """
    count = len(images)
    images, texts = F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    logits = logit_scale.exp() * images @ texts[:count].T
    wrong = texts[count:].reshape(count, HARD_NEGATIVES, -1)
    against = logit_scale.exp() * torch.einsum("bd,bhd->bh", images, wrong)
    truth = torch.arange(count)
    to_text = F.cross_entropy(torch.cat([logits, against], dim=1), truth)
    return (to_text + F.cross_entropy(logits.T, truth)) / 2


class PatchProbe(nn.Linear):
    """Names what each 8 x 8 patch holds, from its token; used in training only, then dropped.

    A vision transformer of this size needs it to see shapes within minutes instead of hours.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 1 + len(KINDS) + len(COLOR_NAMES) + len(SIZE_NAMES))

    def loss(self, tokens: Tensor, scenes: SceneBatch) -> Tensor:
        """Mean cross entropies for patch tokens [B, 64, width] in row-major order."""
        found: Tensor = self(tokens.float())
        image, place = np.nonzero(np.stack([scenes.relation >= -1, scenes.relation >= 0], axis=1))
        column, row = (torch.from_numpy(scenes.center[image, place]) / CELL).long().unbind(1)
        patch = torch.from_numpy(image), row * CELL + column
        borders = 1, 1 + len(KINDS), 1 + len(KINDS) + len(COLOR_NAMES)
        presence, *named = torch.tensor_split(found, borders, dim=-1)
        present = torch.zeros_like(presence)
        present[patch] = 1.0
        loss = F.binary_cross_entropy_with_logits(presence, present, reduction="sum") / len(scenes)
        for logits, truth in zip(named, (scenes.kind, scenes.color, scenes.size), strict=True):
            loss = loss + F.cross_entropy(logits[patch], torch.from_numpy(truth[image, place]))
        return loss


def reconstructor(folder: Path) -> Callable[[Tensor], Tensor]:
    """Passes images [B, 3, 64, 64] in [0, 1] through the VAE: the softness of generated images."""
    vae = AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)

    @torch.no_grad()
    def reconstruct(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(images * 2 - 1).latent_dist.mean
            decoded: Tensor = vae.decode(latents).sample
        return decoded.float() / 2 + 0.5

    return reconstruct


@torch.no_grad()
def clip_logit_scale(logit_scale: Tensor) -> None:
    """CLIP's own bound: no temperature below 1/100."""
    logit_scale.clamp_(max=MAX_LOGIT_SCALE)
