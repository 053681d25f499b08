"""LAION's improved aesthetic predictor: an affine score of a CLIP image embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from shortft_core.catalog import REWARDS
from shortft_core.clip_embedder import ClipEmbedder, load_clip
from shortft_core.preprocessing import shortest_edge_crop
from shortft_core.spec import rewards as spec
from shortft_core.weights import checkpoint_file, load_strict, read_tensors, source_path

_LINEARS: Final = (0, 2, 4, 6, 7)
"""Where the official `layers` hold a Linear; the others are Dropout."""


class AestheticHead(nn.Module):
    """Five Linears without activations in the official key layout, [B, D] -> [B]."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        linears = [nn.Linear(before, after) for before, after in pairwise(widths)]
        # Identity where training had Dropout: no mode of the module can bring it back.
        steps = [linears.pop(0) if i in _LINEARS else nn.Identity() for i in range(8)]
        self.layers = nn.Sequential(*steps)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Scores, nominally 1 to 10; nothing bounds them."""
        scores: Tensor = self.layers(embeddings)
        return scores.squeeze(-1)


class Aesthetic:
    """head(unit CLIP embedding), or minus its distance from `target`; ignores the prompt."""

    name = "aesthetic"

    def __init__(
        self, clip: ClipEmbedder, head: AestheticHead, *, target: float | None, exact: bool
    ) -> None:
        self._clip = clip
        self._head = head.requires_grad_(False).eval().to(device=clip.device, dtype=torch.float32)
        self._target = target
        self._exact = exact

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Scores in float32 [B]."""
        del prompts
        pixels = shortest_edge_crop(images, self._clip.image_size, exact=exact or self._exact)
        scores: Tensor = self._head(self._clip.embed_images(pixels))
        return scores if self._target is None else -(scores - self._target).abs()


def build(
    term: spec.Aesthetic, *, device: torch.device, dtype: torch.dtype, field: str
) -> Aesthetic:
    """The predictor with the CLIP it was trained on; a head given by path uses the official one."""
    choices = REWARDS["aesthetic"].weights
    named = term.source if term.source is not None and term.source.name is not None else None
    folder = source_path(term.clip or named, choices, "clip", field=f"{field}.clip")
    file = checkpoint_file(
        source_path(term.source, choices, "head", field=f"{field}.source"), field=f"{field}.source"
    )
    tensors = read_tensors(file, field=f"{field}.source")
    clip = load_clip(folder, device=device, dtype=dtype, field=f"{field}.clip")
    head = AestheticHead(_widths(tensors, clip.width))
    load_strict(head, tensors, field=f"{field}.source", path=file)
    return Aesthetic(clip, head, target=term.target, exact=term.exact_preprocessing)


def _widths(tensors: Mapping[str, Tensor], embedding_width: int) -> list[int]:
    """Widths of the layers as the file has them; a width that cannot be is left to load_strict."""
    weights = [tensors.get(f"layers.{index}.weight") for index in _LINEARS]
    outputs = [len(w) if w is not None and w.ndim == 2 else 1 for w in weights]
    return [embedding_width, *outputs[:-1], 1]
