"""Human Preference Score v2 (Wu et al. 2023): the cosine under a fine-tuned open_clip ViT-H-14."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from shortft_core.catalog import REWARDS
from shortft_core.clip_embedder import ClipEmbedder, load_clip
from shortft_core.errors import WeightsError
from shortft_core.preprocessing import letterbox
from shortft_core.spec import rewards as spec
from shortft_core.weights import (
    checkpoint_file,
    load_strict,
    read_tensors,
    refuse_other_keys,
    source_path,
)

OFFICIAL_ARCHITECTURE: Final = "ViT-H-14"
CONFIG_FILE: Final = "open_clip_config.json"


class HumanPreferenceScore:
    """cos(image, prompt); compares images of one prompt, and never v2.0 with v2.1."""

    def __init__(self, name: str, clip: ClipEmbedder, *, antialias: bool, exact: bool) -> None:
        self.name = name
        self._clip = clip
        self._antialias = antialias
        self._exact = exact

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Cosines in float32 [B]."""
        pixels = letterbox(
            images,
            self._clip.image_size,
            antialias=self._antialias,
            exact=exact or self._exact,
        )
        return (self._clip.embed_images(pixels) * self._clip.embed_texts(prompts)).sum(-1)


class OpenClip(ClipEmbedder):
    """An open_clip model with open_clip's own tokenizer."""

    def __init__(self, model: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device=device, dtype=dtype)
        self._tokenizer = _tokenizer(model.context_length)
        self.image_size = model.visual.image_size[0]
        self.width = model.visual.output_dim
        self.max_tokens = model.context_length

    def _image_features(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self.model.encode_image(pixels))

    def _text_features(self, prompts: list[str]) -> Tensor:
        return cast("Tensor", self.model.encode_text(self._tokenizer(prompts).to(self.device)))

    def _count_tokens(self, prompt: str) -> int:
        return len(self._tokenizer.encode(prompt)) + 2


@lru_cache(maxsize=1)
def _tokenizer(context_length: int) -> Any:
    """Made once: unpacking its vocabulary takes longer than reading a small model."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=context_length)


def build(
    term: spec.HPSv2 | spec.HPSv21, *, device: torch.device, dtype: torch.dtype, field: str
) -> HumanPreferenceScore:
    """Either version, from an open_clip checkpoint or from a folder in the transformers layout."""
    at = f"{field}.source"
    path = source_path(term.source, REWARDS[term.name].weights, field=at)
    clip: ClipEmbedder
    if (path / "config.json").is_file():
        clip = load_clip(path, device=device, dtype=dtype, field=at)
    else:
        model = load_open_clip(checkpoint_file(path, field=at), field=at)
        clip = OpenClip(model, device=device, dtype=dtype)
    return HumanPreferenceScore(
        term.name, clip, antialias=term.antialias, exact=term.exact_preprocessing
    )


def load_open_clip(checkpoint: Path, *, field: str) -> Any:
    """The model of `open_clip_config.json` beside the checkpoint, else ViT-H-14, in fp32.

    Raises WeightsError if the configuration or the keys are not those of an open_clip CLIP.
    """
    import open_clip

    tensors = read_tensors(checkpoint, field=field)
    config_file = checkpoint.with_name(CONFIG_FILE)
    try:
        if config_file.is_file():
            architecture = json.loads(config_file.read_text(encoding="utf-8"))["model_cfg"]
        else:
            architecture = open_clip.get_model_config(OFFICIAL_ARCHITECTURE)
        # A wrong file is refused before gigabytes are allocated for the right one.
        with torch.device("meta"):
            outline = open_clip.CLIP(**architecture).state_dict()
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            field,
            f"{config_file} is not an open_clip configuration ({error})",
            'Write {"model_cfg": {"embed_dim": ..., "vision_cfg": ..., "text_cfg": ...}}',
        ) from error
    expected = {name: weight.shape for name, weight in outline.items()}
    refuse_other_keys(expected, tensors, field=field, path=checkpoint)
    model = open_clip.CLIP(**architecture)
    load_strict(model, tensors, field=field, path=checkpoint)
    return model


_TOP: Final = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
_TRANSPOSED: Final = ("text_projection", "visual.proj")
_BLOCK: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TOWERS: Final = {
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
}


def to_transformers_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's CLIP keys as those of transformers' CLIPModel, which `build` reads as well.

    The configuration has to say `hidden_act: gelu`. Raises KeyError for a key open_clip has not.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in _TOP:
            converted[_TOP[name]] = tensor.T.contiguous() if name in _TRANSPOSED else tensor
            continue
        tower = next((prefix for prefix in _TOWERS if name.startswith(prefix)), None)
        if tower is None:
            raise KeyError(name)
        index, _, inner = name.removeprefix(tower).partition(".")
        block = f"{_TOWERS[tower]}{index}."
        if inner.startswith("attn.in_proj_"):
            kind = inner.removeprefix("attn.in_proj_")
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                converted[f"{block}self_attn.{letter}_proj.{kind}"] = third.contiguous()
        else:
            part, _, kind = inner.rpartition(".")
            converted[f"{block}{_BLOCK[part]}.{kind}"] = tensor
    return converted
