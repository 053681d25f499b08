"""The LoRA of a jump: one file over Linears and convolutions, merged before it is used."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from shortft_core.lora_files import merge_into, read_lora, write_kohya
from shortft_core.models import DiffusionModel

TARGETS: Final = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
    "conv1",
    "conv2",
    "conv_shortcut",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
)
"""The modules of LCM, PCM and Hyper-SD files: 857M of the 859.5M weights of SD 1.5."""


@dataclass(frozen=True, slots=True)
class JumpLora:
    """A copy of a model whose denoiser carries one trainable LoRA; the model itself is unchanged.

    peft holds the weights: one adapter, always active, so nothing is switched inside a graph.
    """

    model: DiffusionModel
    layers: Mapping[str, nn.Module]
    rank: int

    def parameters(self) -> list[nn.Parameter]:
        """Down and up weight of each layer in turn, fp32."""
        return [w for layer in self.layers.values() for w in _factors(layer)]

    def write(self, path: Path, weights: Iterable[Tensor]) -> None:
        """A kohya file, fp16, of `weights`, which are in the order of `parameters`."""
        values = iter(weights)
        pairs = {name: (next(values).detach(), next(values).detach()) for name in self.layers}
        header = {
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": "stable-diffusion-v1/lora",
            "modelspec.prediction_type": "epsilon",
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(self.rank),
            "ss_network_alpha": str(self.rank),
        }
        part = path.with_name(f".{path.name}.part")
        write_kohya(part, pairs, dtype=torch.float16, header=header)
        part.replace(path)


def attach(model: DiffusionModel, *, rank: int, seed: int) -> JumpLora:
    """A trainable copy: Kaiming-uniform down and zero up (Hu et al., 2021), alpha = rank."""
    denoiser = copy.deepcopy(model.denoiser).requires_grad_(requires_grad=False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, denoiser)
    layers = {n: m for n, m in denoiser.named_modules() if hasattr(m, "lora_A")}
    for layer in layers.values():
        for weight in _factors(layer):
            weight.data = weight.data.float()
    return JumpLora(model.with_denoiser(denoiser, fingerprint_suffix="jump"), layers, rank)


def _factors(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight  # type: ignore[union-attr,index]


def merged(model: DiffusionModel, path: Path) -> DiffusionModel:
    """A frozen copy with the file merged into its weights, as every job will use it."""
    denoiser = copy.deepcopy(model.denoiser)
    merge_into(denoiser, read_lora(path, field="shortcut"), field="shortcut")
    return model.with_denoiser(denoiser, fingerprint_suffix="jump")
