"""The Stable Diffusion 1.x family in the diffusers folder layout."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from shortft_core import catalog
from shortft_core.clip_embedder import load_tokenizer
from shortft_core.errors import MissingWeightsError, UserError, WeightsError
from shortft_core.models import read_config
from shortft_core.weights import refuse_non_finite

CACHED_PROMPTS: Final = 4096
"""About 1 GB of SD 1.5 conditioning in fp32; a service that runs for weeks sees more prompts."""
_PARTS: Final = ("unet", "vae", "text_encoder")
_STEMS: Final = ("diffusion_pytorch_model", "model")


class StableDiffusion:
    """A frozen SD 1.x model; the interface is `models.DiffusionModel`."""

    def __init__(
        self,
        *,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: DDIMScheduler,
        device: torch.device,
        folder: Path | None = None,
    ) -> None:
        self.denoiser: nn.Module = unet
        self.vae, self.text_encoder, self.tokenizer = vae, text_encoder, tokenizer
        for module in (unet, vae, text_encoder):
            module.requires_grad_(False).eval().to(device)
        self.device = device
        self.alphas_cumprod = _alphas_cumprod(scheduler.config)
        self.train_timesteps: int = scheduler.config.num_train_timesteps
        self.steps_offset: int = scheduler.config.steps_offset
        self.guidance_scale = catalog.DEFAULT_TUNING.guidance_scale
        self.negative_prompt = ""
        self.pixels_per_latent: int = 2 ** (len(vae.config.block_out_channels) - 1)
        self.image_size: int = unet.config.sample_size * self.pixels_per_latent
        # Taken before any adapter is attached, so that it names the base model alone.
        self.fingerprint = self.base_fingerprint = _fingerprint(unet, folder)
        self._conditioning: dict[str, Tensor] = {}

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of an image size; UserError if it is not a multiple of the VAE's factor."""
        factor = self.pixels_per_latent
        for field, pixels in (("height", height), ("width", width)):
            if pixels <= 0 or pixels % factor:
                near = max(factor, round(pixels / factor) * factor)
                raise UserError(
                    field, f"{pixels} is not a multiple of {factor}", f"Use {near}, for example"
                )
        return self.vae.config.latent_channels, height // factor, width // factor

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Last hidden states [B, tokens, width], cached per prompt."""
        if len(self._conditioning) > CACHED_PROMPTS:
            self._conditioning.clear()
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._conditioning]
        if new:
            ids = self.tokenizer(
                new, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            states = self.text_encoder(ids.to(self.device))[0]
            self._conditioning.update(zip(new, states, strict=True))
        return torch.stack([self._conditioning[prompt] for prompt in prompts])

    def predict_noise(
        self, latents: Tensor, timestep: int, conditioning: Tensor, guidance_scale: float
    ) -> Tensor:
        """Ho and Salimans' guidance eps_u + g (eps_c - eps_u) as one doubled batch."""
        if guidance_scale == 1.0:
            return self._call(latents, timestep, conditioning)
        away = self.encode_prompts([self.negative_prompt]).expand_as(conditioning)
        both = self._call(torch.cat([latents, latents]), timestep, torch.cat([away, conditioning]))
        unconditional, conditional = both.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    def _call(self, latents: Tensor, timestep: int, conditioning: Tensor) -> Tensor:
        at = torch.full((len(latents),), timestep, device=self.device)
        dtype = next(self.denoiser.parameters()).dtype
        predicted: Tensor = self.denoiser(latents.to(dtype), at, conditioning.to(dtype)).sample
        return predicted.to(latents.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of the latents, nominally in [0, 1] and not clamped; differentiable."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        images: Tensor = self.vae.decode(scaled).sample
        return images.to(latents.dtype) / 2 + 0.5

    def overlong(self, prompts: Sequence[str]) -> list[str]:
        """Prompts of more tokens than the text encoder reads, each once, in their order."""
        distinct = list(dict.fromkeys(prompts))
        tokens = self.tokenizer(distinct, verbose=False).input_ids if distinct else []
        longest = self.tokenizer.model_max_length
        return [prompt for prompt, ids in zip(distinct, tokens, strict=True) if len(ids) > longest]

    def with_denoiser(self, denoiser: nn.Module, *, fingerprint_suffix: str) -> StableDiffusion:
        """A shallow copy with its own denoiser and fingerprint."""
        other = copy.copy(self)
        other.denoiser = denoiser
        identity = (self.fingerprint + fingerprint_suffix).encode()
        other.fingerprint = hashlib.sha256(identity).hexdigest()
        return other

    def with_negative_prompt(self, prompt: str) -> StableDiffusion:
        """A shallow copy."""
        other = copy.copy(self)
        other.negative_prompt = prompt
        return other


def load(folder: Path, *, device: torch.device, dtype: torch.dtype, field: str) -> StableDiffusion:
    """Reads a pipeline folder; the VAE stays in fp32, because rewards look at its pixels.

    Raises MissingWeightsError for an absent part, WeightsError for keys or values that are wrong.
    """
    for name in (*_PARTS, "tokenizer", "scheduler"):
        if not (folder / name).is_dir():
            raise MissingWeightsError(
                field, f"{folder} has no folder {name}", "Fetch or save the whole pipeline again"
            )
    text_encoder = _part(CLIPTextModel, folder / "text_encoder", dtype, field)
    return StableDiffusion(
        unet=_part(UNet2DConditionModel, folder / "unet", dtype, field),
        vae=_part(AutoencoderKL, folder / "vae", torch.float32, field),
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(folder / "tokenizer", text_encoder.config, field),
        scheduler=_scheduler(folder / "scheduler", field),
        device=device,
        folder=folder,
    )


def _part(kind: Any, folder: Path, dtype: torch.dtype, field: str) -> Any:
    """One sub-model, refused unless its safetensors hold exactly its keys, all finite."""
    if not weight_files(folder):
        raise MissingWeightsError(
            field,
            f"{folder} holds no {_STEMS[0]}.safetensors or {_STEMS[1]}.safetensors",
            "Fetch the model again, or save it with safe_serialization=True",
        )
    precision = {"dtype" if kind is CLIPTextModel else "torch_dtype": dtype}
    try:
        module, info = kind.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            use_safetensors=True,
            **precision,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            field, f"{folder} cannot be read ({error})", "Fetch or save the model again"
        ) from error
    # Some exported SD 1.x text encoders carry this buffer; it holds no weights.
    extra = {k for k in info["unexpected_keys"] if not k.endswith("position_ids")}
    faults = {"missing": set(info["missing_keys"]), "unexpected": extra}
    faults["misshapen"] = {str(entry) for entry in info["mismatched_keys"]}
    for fault, keys in faults.items():
        if keys:
            raise WeightsError(
                field,
                f"{folder} has {len(keys)} {fault} keys, for example {min(map(str, keys))}",
                "Use the checkpoint that belongs to this config.json",
            )
    refuse_non_finite(dict(module.named_parameters()), field=field, path=folder)
    return module


def weight_files(folder: Path) -> list[Path]:
    """The files that diffusers loads from a part: one of a known name, or its shards."""
    whole = [folder / f"{stem}.safetensors" for stem in _STEMS]
    shards = [path for stem in _STEMS for path in folder.glob(f"{stem}-*-of-*.safetensors")]
    return [path for path in whole if path.is_file()] or sorted(shards)


def _fingerprint(unet: nn.Module, folder: Path | None) -> str:
    """sha256 of the UNet's files; of its tensors where it came from no folder."""
    digest = hashlib.sha256()
    if folder is None:
        for name, tensor in unet.state_dict().items():
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
        return digest.hexdigest()
    for path in weight_files(folder / "unet"):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _scheduler(folder: Path, field: str) -> DDIMScheduler:
    """The noise schedule; what our DDIM step does not know is refused, never ignored."""
    config = read_config(folder / "scheduler_config.json", field)
    known: dict[str, object] = {
        "prediction_type": "epsilon",
        "trained_betas": None,
        "rescale_betas_zero_snr": False,
        "set_alpha_to_one": False,
    }
    for name, value in known.items():
        if config.get(name, value) != value:
            raise UserError(
                field,
                f"the scheduler of {folder.parent} has {name} {config[name]!r}",
                f"Use a model whose scheduler has {name} {value!r}, as SD 1.x has",
            )
    sampling = {"timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": False}
    return DDIMScheduler.from_config(config, **sampling)


def _alphas_cumprod(config: Any) -> Tensor:
    """Cumulative products of 1 - beta in float64; diffusers' own are float32."""
    start, end, count = config.beta_start, config.beta_end, config.num_train_timesteps
    if config.beta_schedule == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    elif config.beta_schedule == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float64)
    else:
        raise UserError(
            "base_model", f"beta schedule {config.beta_schedule!r}", "Use an SD 1.x model"
        )
    return torch.cumprod(1 - betas, dim=0)
