"""Images and prompts in the common space of a CLIP: what most rewards are a head on."""

from __future__ import annotations

import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from shortft_core.errors import MissingWeightsError, WeightsError
from shortft_core.weights import read_tensors, refuse_other_keys

_log: Final = logging.getLogger(__name__)
_REMEDY: Final = "Give a CLIPModel folder as transformers saves it, with its tokenizer"
_WEIGHT_FILES: Final = ("model.safetensors", "pytorch_model.bin")
_LEGACY_EOS: Final = 2
"""Before 2023 configurations carried this id; transformers then pools at the highest id."""


class ClipEmbedder(ABC):
    """A frozen CLIP. The body runs in `dtype`, embeddings are float32 unit vectors [B, D]."""

    image_size: int
    """Pixels per side that the image tower takes."""
    width: int
    """Dimensions of the common space."""
    max_tokens: int

    def __init__(self, model: nn.Module, *, device: torch.device, dtype: torch.dtype) -> None:
        self.model: Any = model.requires_grad_(False).eval().to(device=device, dtype=dtype)
        self.device, self.dtype = device, dtype
        self._texts: dict[str, Tensor] = {}
        self._warned = False

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embeds normalized images [B, 3, S, S], differentiably."""
        return F.normalize(self._image_features(pixels.to(self.dtype)).float(), dim=-1)

    def embed_texts(self, prompts: Sequence[str]) -> Tensor:
        """Embeds prompts without gradient, each once; longer ones are truncated with a warning."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        # A tensor made in inference mode could not be used in a training graph later.
        with torch.inference_mode(mode=False), torch.no_grad():
            if new:
                self._warn_of_truncation(new)
                features = F.normalize(self._text_features(new).float(), dim=-1)
                self._texts.update(zip(new, features, strict=True))
            return torch.stack([self._texts[prompt] for prompt in prompts])

    def _warn_of_truncation(self, prompts: list[str]) -> None:
        longest = max(prompts, key=self._count_tokens)
        if not self._warned and self._count_tokens(longest) > self.max_tokens:
            self._warned = True
            _log.warning("prompts are cut to %d tokens, for example %r", self.max_tokens, longest)

    @abstractmethod
    def _image_features(self, pixels: Tensor) -> Tensor: ...

    @abstractmethod
    def _text_features(self, prompts: list[str]) -> Tensor: ...

    @abstractmethod
    def _count_tokens(self, prompt: str) -> int:
        """Length with the two special tokens, before truncation."""


class TransformersClip(ClipEmbedder):
    """A transformers CLIPModel with its own tokenizer."""

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: CLIPTokenizer,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(model, device=device, dtype=dtype)
        self._tokenizer = tokenizer
        self.image_size = model.config.vision_config.image_size
        self.width = model.config.projection_dim
        self.max_tokens = model.config.text_config.max_position_embeddings

    def _image_features(self, pixels: Tensor) -> Tensor:
        return _pooled(self.model.get_image_features(pixel_values=pixels))

    def _text_features(self, prompts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        # The mask may be left out: attention is causal and the embedding is read at the end token.
        return _pooled(self.model.get_text_features(input_ids=tokens.input_ids.to(self.device)))

    def _count_tokens(self, prompt: str) -> int:
        return len(self._tokenizer(prompt, verbose=False).input_ids)


def _pooled(features: Any) -> Tensor:
    """The embedding itself, which transformers 5 wraps in an output object and 4 does not."""
    return cast("Tensor", features if isinstance(features, Tensor) else features.pooler_output)


_loaded: Final[weakref.WeakValueDictionary[tuple[Any, ...], TransformersClip]] = (
    weakref.WeakValueDictionary()
)


def load_clip(
    folder: Path, *, device: torch.device, dtype: torch.dtype, field: str
) -> TransformersClip:
    """Loads a transformers CLIP folder; rewards alive at the same time share one copy.

    Raises MissingWeightsError for an absent file, WeightsError for keys, values or a vocabulary
    that do not belong together.
    """
    key = (folder.resolve(), str(device), dtype)
    clip = _loaded.get(key)
    if clip is None:
        model = _load_model(folder, field)
        tokenizer = load_tokenizer(folder, model.config.text_config, field)
        clip = _loaded[key] = TransformersClip(model, tokenizer, device=device, dtype=dtype)
    return clip


def _load_model(folder: Path, field: str) -> CLIPModel:
    if not (folder / "config.json").is_file():
        raise MissingWeightsError(field, f"{folder} has no config.json", _REMEDY)
    try:
        config = CLIPConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            outline = CLIPModel(config).state_dict()
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise WeightsError(field, f"{folder / 'config.json'}: {error}", _REMEDY) from error
    if config.model_type != "clip":
        raise WeightsError(field, f"{folder} is a {config.model_type} model", _REMEDY)
    file = next((folder / n for n in _WEIGHT_FILES if (folder / n).is_file()), None)
    if file is None:
        raise MissingWeightsError(
            field, f"{folder} has neither {' nor '.join(_WEIGHT_FILES)}", _REMEDY
        )
    # Checkpoints of before 2023 store the positions 0, 1, 2, ..., which are no weights.
    tensors = {
        name: tensor
        for name, tensor in read_tensors(file, field=field).items()
        if not name.endswith("embeddings.position_ids")
    }
    expected = {name: weight.shape for name, weight in outline.items()}
    refuse_other_keys(expected, tensors, field=field, path=file)
    # Without a random initialization, which takes a ViT-H longer than the reading.
    return cast(
        "CLIPModel",
        CLIPModel.from_pretrained(None, config=config, state_dict=tensors, dtype=torch.float32),
    )


def load_tokenizer(folder: Path, text_config: Any, field: str) -> CLIPTokenizer:
    """A CLIP tokenizer that fits its text tower; WeightsError for one that would mislead it."""
    fast = (folder / "tokenizer.json").is_file()
    # transformers makes an empty tokenizer of an empty folder without a word.
    if not fast and not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        raise MissingWeightsError(
            field, f"{folder} has neither tokenizer.json nor vocab.json and merges.txt", _REMEDY
        )
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) > text_config.vocab_size:
        raise WeightsError(
            field,
            f"{folder} has {len(tokenizer)} tokens for {text_config.vocab_size} embeddings",
            _REMEDY,
        )
    read_at = text_config.eos_token_id
    if read_at == _LEGACY_EOS:
        read_at = len(tokenizer) - 1
    if read_at != tokenizer.eos_token_id:
        raise WeightsError(
            field,
            f"{folder} ends prompts with token {tokenizer.eos_token_id},"
            f" but config.json reads the embedding at {read_at}",
            _REMEDY,
        )
    return cast("CLIPTokenizer", tokenizer)
