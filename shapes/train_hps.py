"""Trains `shapes-hps`: another CLIP, tuned on synthetic preferences, as an HPS v2 checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from shapes.command_line import folders
from shapes.contrast import (
    HARD_NEGATIVES,
    PatchProbe,
    clip_logit_scale,
    contrast_batch,
    contrastive_loss,
    normalize,
    reconstructor,
)
from shapes.hard_negatives import wrong_captions
from shapes.preferences import preferences
from shapes.renderer import IMAGE_SIZE
from shapes.training import Recipe, fit

FOLDER: Final = Path(__file__).parent.parent / "shortft_core" / "bundled" / "shapes-hps"
FILE: Final = "HPS_v2_compressed.pt"
CONFIG: Final[dict[str, Any]] = {
    "embed_dim": 96,
    "vision_cfg": {
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
        "width": 96,
        "head_width": 32,
        "layers": 4,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 48,
        "heads": 4,
        "layers": 2,
    },
}
CONTRAST: Final = Recipe(
    name="hps", steps=600, learning_rate=1.5e-3, seed=501, weight_decay=0.05, ema_decay=0.995
)
PREFERENCE: Final = Recipe(
    name="hps-preference", steps=400, learning_rate=5e-4, seed=502, ema_decay=0.99, save_every=100
)
BATCH: Final = 96
PAIRS: Final = 64
TWO_SHAPES: Final = 0.7
"""In the second part: relations are what the first one learns least of."""
VAE_EVERY: Final = 6
PAIR_LOGIT_SCALE: Final = 100.0


class Scorer(nn.Module):
    """The CLIP in open_clip's own code, and the probe that helps it to see."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(CONTRAST.seed)
        self.clip = open_clip.CLIP(**CONFIG)
        self.clip.visual.output_tokens = True
        self.tokenizer = open_clip.SimpleTokenizer(context_length=77)
        self.probe = PatchProbe(CONFIG["vision_cfg"]["width"])

    def images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, 96] and patch tokens [B, 64, 96]."""
        embeddings, tokens = self.clip.visual(normalize(images))
        return embeddings, tokens

    def texts(self, texts: list[str]) -> Tensor:
        """Embeddings [B, 96]; causal attention makes the padding after the longest text idle."""
        ids: Tensor = self.tokenizer(texts)
        length = int((ids != 0).sum(1).max())
        ids = ids[:, :length]
        states = self.clip.token_embedding(ids) + self.clip.positional_embedding[:length]
        states = self.clip.transformer(states, attn_mask=self.clip.attn_mask[:length, :length])
        last = self.clip.ln_final(states)[torch.arange(len(ids)), ids.argmax(dim=-1)]
        embeddings: Tensor = last @ self.clip.text_projection
        return embeddings


def preference_loss(better: Tensor, worse: Tensor, texts: Tensor) -> Tensor:
    """Softmax over the two images of each caption at logit scale 100 (HPS v2, PickScore)."""
    better, worse, texts = (F.normalize(e.float(), dim=-1) for e in (better, worse, texts))
    logits = PAIR_LOGIT_SCALE * torch.stack([(better * texts).sum(-1), (worse * texts).sum(-1)], 1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def train(folder: Path, vae_folder: Path) -> None:
    """Contrastive training, then preferences; stores the CLIP in fp16."""
    model = Scorer()
    # PyTorch's fused attention takes ten times as long backward in bfloat16 on a CPU.
    with sdpa_kernel(SDPBackend.MATH):
        _train_contrast(model, vae_folder)
        _train_preference(model)
    save(model.clip, folder)


def _train_contrast(model: Scorer, vae_folder: Path) -> None:
    reconstruct = reconstructor(vae_folder)

    def loss_at(step: int) -> Tensor:
        vae = reconstruct if step % VAE_EVERY == 0 else None
        data = contrast_batch(CONTRAST, step, BATCH, vae)
        clip_logit_scale(model.clip.logit_scale)
        with torch.autocast("cpu", torch.bfloat16):
            images, tokens = model.images(data.images)
            texts = model.texts(data.captions + data.wrong)
        loss = contrastive_loss(images, texts, model.clip.logit_scale)
        return loss + 0.5 * model.probe.loss(tokens, data.scenes)

    fit(CONTRAST, model, loss_at)


def _train_preference(model: Scorer) -> None:
    model.probe.requires_grad_(False)

    def loss_at(step: int) -> Tensor:
        data = preferences(PREFERENCE.seed, step, PAIRS, two_shapes=TWO_SHAPES)
        rng = np.random.default_rng((PREFERENCE.seed, step, 1))
        wrong = wrong_captions(rng, data.captions, HARD_NEGATIVES)
        clip_logit_scale(model.clip.logit_scale)
        with torch.autocast("cpu", torch.bfloat16):
            images, _ = model.images(torch.cat([data.better, data.worse]))
            texts = model.texts(data.captions + wrong)
        better, worse = images.chunk(2)
        contrast = contrastive_loss(better, texts, model.clip.logit_scale)
        return preference_loss(better, worse, texts[: len(better)]) + contrast

    fit(PREFERENCE, model, loss_at)


def save(clip: open_clip.CLIP, folder: Path) -> None:
    """`HPS_v2_compressed.pt` as the authors publish it, and the open_clip model configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.half().contiguous() for name, tensor in clip.state_dict().items()}
    torch.save({"state_dict": state}, folder / FILE)
    text = json.dumps({"model_cfg": CONFIG}, indent=2) + "\n"
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Command line."""
    to, vae = folders(__doc__, FOLDER)
    train(to, vae)


if __name__ == "__main__":
    main()
