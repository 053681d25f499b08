"""A tiny random Stable Diffusion in the official folder layout, loaded by the real loader."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from shortft_core.models.stable_diffusion import StableDiffusion

WORDS = ("a", "red", "circle", "blue", "star")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder of 35,000 random parameters: 16-pixel images, 4 x 8 x 8 latents."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    folder = tmp_path_factory.mktemp("tiny-sd")
    StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=_unet(),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            steps_offset=1,
            set_alpha_to_one=False,
            clip_sample=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def _tokenizer() -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    tokens = [*(f"{word}</w>" for word in WORDS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            projection_dim=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet() -> UNet2DConditionModel:
    """One level: attention and feed-forward in its down, mid and up block, and no more calls."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def _vae() -> AutoencoderKL:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
    )


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> StableDiffusion:
    """The tiny model as its loader gives it, in fp32; tests work on copies."""
    import torch

    from shortft_core import models
    from shortft_core.spec import Source

    model = models.load(
        Source(path=str(tiny_folder)), device=torch.device("cpu"), dtype=torch.float32
    )
    assert isinstance(model, _class())
    return model


@pytest.fixture
def load_tiny(tiny: StableDiffusion) -> Callable[..., StableDiffusion]:
    """Makes a fresh copy of the tiny model, in fp32 or in float64."""

    def load(*, double: bool = False) -> StableDiffusion:
        model = fresh_copy(tiny)
        if double:
            for module in (model.denoiser, model.vae, model.text_encoder):
                module.double()
        return model

    return load


def fresh_copy(model: StableDiffusion) -> StableDiffusion:
    """A model with modules and weights of its own, without reading the files again."""
    other = copy.copy(model)
    other.denoiser, other.vae = copy.deepcopy(model.denoiser), copy.deepcopy(model.vae)
    other.text_encoder = copy.deepcopy(model.text_encoder)
    other._conditioning = dict(model._conditioning)
    return other


def _class() -> type[StableDiffusion]:
    from shortft_core.models.stable_diffusion import StableDiffusion

    return StableDiffusion
