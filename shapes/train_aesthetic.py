"""Trains `shapes-aesthetic`: the linear head of the LAION predictor on the embeddings of a CLIP."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel

from shapes.contrast import normalize
from shapes.quality import rated_images
from shapes.train_pick import FOLDER as PICK_FOLDER
from shapes.training import Recipe, fit

FOLDER: Final = Path(__file__).parent.parent / "shortft_core" / "bundled" / "shapes-aesthetic"
FILE: Final = "sac+logos+ava1-l14-linearMSE.pth"
RECIPE: Final = Recipe(
    name="aesthetic", steps=2000, learning_rate=1e-3, seed=601, weight_decay=0.0, save_every=1000
)
BATCH: Final = 256
CHUNK: Final = 256
IMAGES: Final = 32 * CHUNK


class Head(nn.Module):
    """Five linear layers without activations between them; `layers.{0,2,4,6,7}` as published."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """Scores [B] of L2-normalised embeddings [B, width]."""
        scores: Tensor = self.layers(embeddings).squeeze(-1)
        return scores


@torch.no_grad()
def embed(clip: CLIPModel, images: Tensor) -> Tensor:
    """L2-normalised projected embeddings of images [B, 3, 64, 64] in [0, 1]."""
    seen = clip.vision_model(normalize(images)).pooler_output
    return F.normalize(clip.visual_projection(seen), dim=-1)


def train(folder: Path, clip_folder: Path) -> None:
    """Mean squared error on the embeddings of a fixed set of rated images."""
    clip = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
    parts = [rated_images(RECIPE.seed, step, CHUNK) for step in range(IMAGES // CHUNK)]
    embeddings = torch.cat([embed(clip, images) for images, _ in parts])
    scores = torch.cat([score for _, score in parts])
    torch.manual_seed(RECIPE.seed)
    head = Head(embeddings.shape[1])
    with torch.no_grad():
        head.get_parameter("layers.7.bias").fill_(scores.mean())

    def loss_at(step: int) -> Tensor:
        # The global generator draws the dropout, so it has to depend on the step alone.
        torch.manual_seed(RECIPE.seed + step)
        rows = torch.randint(len(scores), (BATCH,))
        return F.mse_loss(head(embeddings[rows]), scores[rows])

    fit(RECIPE, head, loss_at)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.half() for name, tensor in head.state_dict().items()}
    torch.save(state, folder / FILE)


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=PICK_FOLDER)
    parser.add_argument("--to", dest="folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    train(options.folder, options.clip)


if __name__ == "__main__":
    main()
