"""PickScore and CLIPScore: the cosine of image and prompt under a transformers CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shortft_core.catalog import REWARDS
from shortft_core.clip_embedder import ClipEmbedder, load_clip
from shortft_core.preprocessing import shortest_edge_crop
from shortft_core.spec import rewards as spec
from shortft_core.weights import source_path


class ClipCosine:
    """cos(image, prompt), without the logit scale: 0.2 here is 20 in published tables."""

    def __init__(self, name: str, clip: ClipEmbedder, *, exact: bool) -> None:
        self.name = name
        self._clip = clip
        self._exact = exact

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Cosines in float32 [B]."""
        pixels = shortest_edge_crop(images, self._clip.image_size, exact=exact or self._exact)
        return (self._clip.embed_images(pixels) * self._clip.embed_texts(prompts)).sum(-1)


def build_pickscore(
    term: spec.PickScore, *, device: torch.device, dtype: torch.dtype, field: str
) -> ClipCosine:
    """PickScore v1 (Kirstain et al. 2023), or another CLIP trained on preferences."""
    return _build(term, device, dtype, field)


def build_clipscore(
    term: spec.ClipScore, *, device: torch.device, dtype: torch.dtype, field: str
) -> ClipCosine:
    """CLIPScore (Hessel et al. 2021) without its cut at zero, which has no gradient."""
    return _build(term, device, dtype, field)


def _build(
    term: spec.PickScore | spec.ClipScore, device: torch.device, dtype: torch.dtype, field: str
) -> ClipCosine:
    folder = source_path(term.source, REWARDS[term.name].weights, field=f"{field}.source")
    clip = load_clip(folder, device=device, dtype=dtype, field=f"{field}.source")
    return ClipCosine(term.name, clip, exact=term.exact_preprocessing)
