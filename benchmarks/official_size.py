"""Pipeline folders with random weights: Stable Diffusion 1.5 at its real size, and a tiny one.

Speed and memory do not depend on what the weights are, so nothing is downloaded. The values are
those of the published configuration files; the counts of parameters prove them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from shortft_core.adapters import AdapterBank
from shortft_core.lora_files import write_kohya
from shortft_core.models import DiffusionModel
from shortft_core.rewards.hps import OFFICIAL_ARCHITECTURE

SPECIAL_TOKENS: Final = ("<|startoftext|>", "<|endoftext|>")


@dataclass(frozen=True, slots=True)
class Size:
    """The configurations of one model, and the ranks that suit its width."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    rank: int
    """Rank of the branches that are tuned."""
    shortcut_rank: int


OFFICIAL: Final = Size(
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    vae={
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "scaling_factor": 0.18215,
    },
    text_encoder={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    rank=128,
    shortcut_rank=64,
)
TINY: Final = Size(
    unet={
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    },
    vae={
        "sample_size": 16,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
    },
    text_encoder={
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 16,
    },
    rank=4,
    shortcut_rank=2,
)


@cache
def _clip_tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def unet(size: Size) -> UNet2DConditionModel:
    """The denoiser."""
    return UNet2DConditionModel(**size.unet)


def vae(size: Size) -> AutoencoderKL:
    """The decoder of latents and its encoder."""
    return AutoencoderKL(latent_channels=4, **size.vae)


def text_encoder(size: Size) -> CLIPTextModel:
    """The text tower over CLIP's 49,408 tokens."""
    vocabulary = _clip_tokenizer().encoder
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            max_position_embeddings=77,
            bos_token_id=len(vocabulary) - 2,
            eos_token_id=len(vocabulary) - 1,
            **size.text_encoder,
        )
    )


def tokenizer() -> CLIPTokenizer:
    """CLIP's own vocabulary, which open_clip carries under other names of the special tokens."""
    known = _clip_tokenizer()
    tokens = [*list(known.encoder)[: -len(SPECIAL_TOKENS)], *SPECIAL_TOKENS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(pair) for pair in known.bpe_ranks]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def write_pipeline(folder: Path, size: Size) -> Path:
    """A pipeline folder in the official layout, in fp16 as such folders are published."""
    torch.manual_seed(0)
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )
    StableDiffusionPipeline(
        vae=vae(size).half(),
        text_encoder=text_encoder(size).half(),
        tokenizer=tokenizer(),
        unet=unet(size).half(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def write_few_step(path: Path, model: DiffusionModel, rank: int) -> Path:
    """A LoRA file without increment, as a stand-in for a distilled few-step model."""
    bank = AdapterBank(model.denoiser, branches=1, rank=rank)
    weights = bank.weights(1)
    bank.detach()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_kohya(path, weights, dtype=torch.float16, header={})
    return path


def write_hps(path: Path) -> Path:
    """A random ViT-H-14 in the layout of HPS v2: 1 B parameters, as the reward of the paper."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.CLIP(**open_clip.get_model_config(OFFICIAL_ARCHITECTURE)).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path)
    return path
