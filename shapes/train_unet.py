"""Trains the text encoder and UNet of `shapes-base` on the frozen VAE's latents."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from shapes import tokenizer as small_tokenizer
from shapes.command_line import folders
from shapes.data import to_tensor
from shapes.renderer import SceneBatch, captions, draw_scenes, render
from shapes.training import STATE_FOLDER, Recipe, fit
from shortft_core.weights import BUNDLED

log = logging.getLogger("shapes")

RECIPE: Final = Recipe(
    name="unet", steps=3200, learning_rate=1.2e-3, seed=201, ema_decay=0.998, save_every=250
)
BATCH: Final = 64
SCENES: Final = 40_000
TWO_SHAPES: Final = 0.45
EMPTY_CAPTIONS: Final = 0.1
MIN_SNR_GAMMA: Final = 5.0
WIDTH: Final = 128
SCHEDULE: Final = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}


class Denoiser(nn.Module):
    """Text encoder and UNet, trained together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(RECIPE.seed)
        self.tokenizer = small_tokenizer.build()
        self.text_encoder = CLIPTextModel(_text_config(self.tokenizer))
        self.unet = UNet2DConditionModel(
            sample_size=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(64, 96, 128),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    def forward(self, latents: Tensor, timesteps: Tensor, texts: list[str]) -> Tensor:
        """Predicted noise for latents [B, 4, 16, 16] under the captions."""
        ids = self.tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        states = self.text_encoder(ids)[0]
        predicted: Tensor = self.unet(latents, timesteps, states).sample
        return predicted


def _text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=small_tokenizer.MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@torch.no_grad()
def encoded_world(vae: AutoencoderKL) -> tuple[SceneBatch, Tensor]:
    """All training scenes and their scaled latents [SCENES, 4, 16, 16], cached on disk."""
    scenes = draw_scenes(np.random.default_rng(RECIPE.seed), SCENES, two_shapes=TWO_SHAPES)
    cache = STATE_FOLDER / "unet-latents.safetensors"
    if cache.exists():
        return scenes, load_file(cache)["latents"]
    parts = []
    generator = torch.Generator().manual_seed(RECIPE.seed)
    for start in range(0, SCENES, 250):
        images = to_tensor(render(scenes.select(slice(start, start + 250)))) * 2 - 1
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
        parts.append(posterior.sample(generator).float() * vae.config.scaling_factor)
    latents = torch.cat(parts).contiguous()
    log.info("latents: mean %.3f std %.3f", latents.mean(), latents.std())
    cache.parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents}, cache)
    return scenes, latents


def train(vae_folder: Path, folder: Path) -> None:
    """Epsilon loss with min-SNR weights (Hang et al., 2023); writes the whole pipeline."""
    vae = AutoencoderKL.from_pretrained(vae_folder)
    scenes, latents = encoded_world(vae)
    scheduler = DDIMScheduler(**SCHEDULE)
    signal = scheduler.alphas_cumprod
    weights = torch.clamp(MIN_SNR_GAMMA * (1 - signal) / signal, max=1.0)
    denoiser = Denoiser()

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng((RECIPE.seed, step))
        generator = torch.Generator().manual_seed(step)
        rows = rng.choice(SCENES, BATCH, replace=False)
        texts = captions(rng, scenes.select(rows))
        texts = ["" if rng.random() < EMPTY_CAPTIONS else text for text in texts]
        # One timestep in each of BATCH equal strata: less noise in the loss than independent draws.
        spread = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        timesteps = (spread * len(signal)).long()
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = denoiser(noisy, timesteps, texts)
        errors = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        loss: Tensor = (weights[timesteps] * errors).mean()
        return loss

    fit(RECIPE, denoiser, loss_at)
    write_pipeline(vae, denoiser, folder)


def write_pipeline(vae: AutoencoderKL, denoiser: Denoiser, folder: Path) -> None:
    """A folder that `StableDiffusionPipeline.from_pretrained` loads, weights in fp16."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=denoiser.tokenizer,
        unet=denoiser.unet,
        scheduler=DDIMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    # The classic two files beside tokenizer.json, for readers older than transformers 5.
    denoiser.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))


def main() -> None:
    """Command line."""
    to, vae = folders(__doc__, BUNDLED / "shapes-base")
    train(vae, to)


if __name__ == "__main__":
    main()
