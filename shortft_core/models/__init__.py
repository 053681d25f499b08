"""Text-to-image models behind one interface, one file per family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from shortft_core import catalog
from shortft_core.errors import MissingWeightsError, UserError, WeightsError
from shortft_core.spec import Source
from shortft_core.weights import locate


class DiffusionModel(Protocol):
    """A frozen base model: prompts to conditioning, latents to noise, latents to images.

    Shapes: latents [B, C, h, w], conditioning [B, tokens, width], images [B, 3, H, W] in [0, 1].
    """

    denoiser: nn.Module
    """Where adapters attach."""
    alphas_cumprod: Tensor
    """Signal level of each training timestep, float64 [train_timesteps], on the CPU."""
    train_timesteps: int
    steps_offset: int
    guidance_scale: float
    """Default classifier-free guidance."""
    image_size: int
    """Pixels per side the model was trained for."""
    pixels_per_latent: int
    device: torch.device
    fingerprint: str
    """sha256 of the denoiser's weights: what an adapter belongs to."""

    base_fingerprint: str
    """That of the model before anything was merged into its denoiser."""

    negative_prompt: str
    """What the unconditional half of guidance sees; empty unless it was changed."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of an image size; UserError if it is not a multiple of the VAE's factor."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Conditioning of the prompts, without gradient, cached per prompt."""
        ...

    def predict_noise(
        self, latents: Tensor, timestep: int, conditioning: Tensor, guidance_scale: float
    ) -> Tensor:
        """Noise with classifier-free guidance; one conditional call where the scale is 1."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images of the latents, nominally in [0, 1] and not clamped; differentiable."""
        ...

    def overlong(self, prompts: Sequence[str]) -> list[str]:
        """Prompts that the text encoder sees only the beginning of, each once, in their order."""
        ...

    def with_denoiser(self, denoiser: nn.Module, *, fingerprint_suffix: str) -> DiffusionModel:
        """This model with another denoiser, which is taken as it is: device, precision, gradient.

        Everything else is shared, encoded prompts too. The fingerprint is the sha256 of this
        model's and the suffix, so that adapters of the two are never confused.
        """
        ...

    def with_negative_prompt(self, prompt: str) -> DiffusionModel:
        """This model, guided away from a prompt; everything is shared."""
        ...


def load(
    source: Source, *, device: torch.device, dtype: torch.dtype, field: str = "base_model"
) -> DiffusionModel:
    """Loads a base model by catalog name, hub id or folder; the folder names its family.

    Raises UnknownNameError, MissingWeightsError, WeightsError.
    """
    if source.name is not None:
        entry = catalog.find(catalog.BASE_MODELS, source.name, f"{field}.name")
        folder = locate(entry.weights, field=field)
    elif source.id is not None:
        weights = catalog.Weights(hub_id=source.id, licence="stated by its owner")
        folder = locate(weights, field=field, revision=source.revision)
    else:
        folder = Path(source.path or "")
    factory = catalog.load(catalog.MODEL_FAMILIES[_family(folder, field)])
    model: DiffusionModel = factory(folder, device=device, dtype=dtype, field=field)
    model.guidance_scale = catalog.tuning(source).guidance_scale
    return model


def _family(folder: Path, field: str) -> str:
    index = folder / "model_index.json"
    if not index.is_file():
        raise WeightsError(
            field,
            f"{folder} is not a diffusers pipeline: model_index.json is missing",
            "Give the folder that holds model_index.json, unet/, vae/, text_encoder/, tokenizer/",
        )
    family = read_config(index, field).get("_class_name")
    if family not in catalog.MODEL_FAMILIES:
        known = ", ".join(catalog.MODEL_FAMILIES)
        raise UserError(field, f"{folder} is a {family}", f"Use a model of the family {known}")
    return str(family)


def read_config(path: Path, field: str) -> dict[str, Any]:
    """A JSON object of a model folder; MissingWeightsError or WeightsError names the file."""
    if not path.is_file():
        raise MissingWeightsError(field, f"{path} is missing", "Fetch or save the model again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(
            field, f"{path} is not JSON ({error})", "Fetch or save the model again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(field, f"{path} holds no JSON object", "Fetch or save the model again")
    return content
