"""Short training traces of every method: what `make golden` records and the tests compare with.

Weights follow from a formula, so that no library's initialisation is part of what is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from pydantic import TypeAdapter
from torch import Tensor, nn

from shortft_core import methods
from shortft_core.lora_files import write_kohya
from shortft_core.methods import Batch, Method
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.rewards import Composite
from shortft_core.spec import AnyMethod
from tests.shortft_core import conftest as tiny

FOLDER: Final = Path(__file__).parent
UPDATES: Final = 4
METHODS: Final[dict[str, dict[str, Any]]] = {
    "shortft": {"steps": 13},
    "draft_k": {"gradient_steps": 2},
    "draft_lv": {},
    "refl": {"training_steps": 10, "first_mid_step": 6, "last_mid_step": 9},
    "alignprop": {},
    "drtune": {"trained_steps": 3, "early_stop": 4},
    "direct": {"guidance_scale": 1.0},
}
_LAYERS: Final = {"attn1.to_q": 8, "attn1.to_v": 8, "attn2.to_v": 16}


class MeanSquare:
    """A smooth reward in float64."""

    name = "mean_square"

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        """Mean squared distance from a light grey, per image."""
        return (images - 0.3).square().mean(dim=(1, 2, 3))


def record(name: str, scratch: Path) -> list[dict[str, float]]:
    """Loss and gradient norm of each update; ShortFT enters its next stage at every one."""
    method = _method(name, scratch)
    branches = range(1, method.bank.branches + 1)
    weights = [weight for branch in branches for weight in method.bank.parameters(branch)]
    optimizer = torch.optim.AdamW(weights, lr=0.02)
    trace = []
    for update in range(UPDATES):
        if len(method.stage_shares) > 1:
            method.enter_stage(update + 1)
        batch = Batch(("a red circle", "a blue star"), (2 * update, 2 * update + 1), draw=update)
        optimizer.zero_grad(set_to_none=True)
        loss = method.loss(batch).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(weights, math.inf).item()
        optimizer.step()
        trace.append({"loss": loss.item(), "gradient_norm": norm})
    return trace


def _method(name: str, scratch: Path) -> Method:
    options: dict[str, Any] = {"type": name, "steps": 12, "guidance_scale": 2.0, "rank": 2}
    own = {"shortft": "shortcut", "direct": "few_step"}
    if name in own:
        options[own[name]] = {"path": str(_few_step(scratch / "few-step.safetensors"))}
    spec: AnyMethod = TypeAdapter(AnyMethod).validate_python(options | METHODS[name])
    reward = Composite([(MeanSquare(), 1.0)])
    method = methods.build(spec, model=_model(), reward=reward, seed=0)
    for branch in range(1, method.bank.branches + 1):
        for index, weight in enumerate(method.bank.parameters(branch)):
            weight.data = _wave(weight.shape, 0.1 * (index % 2 == 0), branch + index)
    return method


def _model() -> StableDiffusion:
    tokenizer = tiny._tokenizer()
    unet, vae, text_encoder = _unet(), tiny._vae(), tiny._text_encoder(tokenizer)
    for module in (unet, vae, text_encoder):
        module.double()
        for index, (name, weight) in enumerate(sorted(module.named_parameters())):
            if weight.ndim > 1:
                weight.data = _wave(weight.shape, 1.5 / math.sqrt(weight[0].numel()), index)
            else:
                # Norms multiply by one, biases add nothing.
                weight.data.fill_(float(name.endswith("weight")))
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )
    return StableDiffusion(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=scheduler,
        device=torch.device("cpu"),
    )


def _unet() -> UNet2DConditionModel:
    """The one that was recorded with; it has a level more than the tests of `shortft_core` need."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def _few_step(path: Path) -> Path:
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    layers = {
        f"{block}.{layer}": (_wave((4, width), 1.0, 1).float(), _wave((8, 4), 1.0, 2).float())
        for layer, width in _LAYERS.items()
    }
    write_kohya(path, layers, dtype=torch.float32, header={})
    return path


def _wave(shape: Sequence[int], amplitude: float, phase: int) -> Tensor:
    """Numbers without a pattern that matters: a sine with an irrational step."""
    numbers = torch.arange(math.prod(shape), dtype=torch.float64)
    return amplitude * torch.sin(numbers * math.sqrt(2) + phase).reshape(tuple(shape))
