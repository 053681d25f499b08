"""Trains `shapes-pick`: a small CLIP on rendered scenes, in the layout of PickScore_v1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from shapes import tokenizer as small_tokenizer
from shapes.command_line import folders
from shapes.contrast import (
    MEAN,
    STD,
    PatchProbe,
    clip_logit_scale,
    contrast_batch,
    contrastive_loss,
    normalize,
    reconstructor,
)
from shapes.renderer import IMAGE_SIZE
from shapes.training import Recipe, fit

FOLDER: Final = Path(__file__).parent.parent / "shortft_core" / "bundled" / "shapes-pick"
WIDTH: Final = 128
RECIPE: Final = Recipe(
    name="pick", steps=900, learning_rate=1.5e-3, seed=401, weight_decay=0.05, ema_decay=0.995
)
RELATIONS: Final = Recipe(
    name="pick-relations",
    steps=500,
    learning_rate=1e-3,
    seed=402,
    weight_decay=0.05,
    ema_decay=0.99,
)
"""Continues with mostly two shapes: the first part alone leaves relations at chance."""
TWO_SHAPES: Final = 0.7
BATCH: Final = 128
VAE_EVERY: Final = 6
"""Steps between batches with images that went through the VAE."""


class Contrast(nn.Module):
    """The CLIP and the probe that helps it to see."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(RECIPE.seed)
        self.tokenizer = small_tokenizer.build()
        self.clip = CLIPModel(config(self.tokenizer))
        # PyTorch's fused attention takes ten times as long backward in bfloat16 on a CPU.
        self.clip.set_attn_implementation("eager")
        self.probe = PatchProbe(WIDTH)

    def images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, 128] and patch tokens [B, 64, 128]."""
        seen = self.clip.vision_model(normalize(images))
        return self.clip.visual_projection(seen.pooler_output), seen.last_hidden_state[:, 1:]

    def texts(self, texts: list[str]) -> Tensor:
        """Embeddings [B, 128]."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        embeddings: Tensor = self.clip.text_projection(self.clip.text_model(**tokens).pooler_output)
        return embeddings


def config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Patches of 8 pixels, four vision and two text layers."""
    return CLIPConfig(
        projection_dim=WIDTH,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": small_tokenizer.MAX_LENGTH,
            "projection_dim": WIDTH,
            "hidden_act": "gelu",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "projection_dim": WIDTH,
            "hidden_act": "gelu",
        },
    )


def train(folder: Path, vae_folder: Path) -> None:
    """Contrastive training on fresh softened scenes in two parts; stores the CLIP in fp16."""
    model = Contrast()
    reconstruct = reconstructor(vae_folder)
    for recipe, two_shapes in ((RECIPE, 0.4), (RELATIONS, TWO_SHAPES)):
        _train_part(model, recipe, reconstruct, two_shapes)
    save(model.clip, model.tokenizer, folder)


def _train_part(
    model: Contrast, recipe: Recipe, reconstruct: Callable[[Tensor], Tensor], two_shapes: float
) -> None:
    def loss_at(step: int) -> Tensor:
        vae = reconstruct if step % VAE_EVERY == 0 else None
        data = contrast_batch(recipe, step, BATCH, vae, two_shapes=two_shapes)
        clip_logit_scale(model.clip.logit_scale)
        with torch.autocast("cpu", torch.bfloat16):
            images, tokens = model.images(data.images)
            texts = model.texts(data.captions + data.wrong)
        loss = contrastive_loss(images, texts, model.clip.logit_scale)
        return loss + 0.5 * model.probe.loss(tokens, data.scenes)

    fit(recipe, model, loss_at)


def save(clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """The files of PickScore_v1: model, tokenizer and image processor."""
    clip_logit_scale(clip.logit_scale)
    clip.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=MEAN,
        image_std=STD,
    )
    processor.save_pretrained(folder)


def main() -> None:
    """Command line."""
    to, vae = folders(__doc__, FOLDER)
    train(to, vae)


if __name__ == "__main__":
    main()
