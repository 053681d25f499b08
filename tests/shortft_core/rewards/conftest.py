"""Tiny random checkpoints in the layouts that the official weights have."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from shortft_core import weights

OPEN_CLIP_ARCHITECTURE: Final[dict[str, Any]] = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 28,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 14,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
CLIP_ARCHITECTURE: Final[dict[str, Any]] = {
    "projection_dim": 24,
    "vision_config": {
        "image_size": 28,
        "patch_size": 14,
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
    },
    "text_config": {
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    },
}
AESTHETIC_WIDTHS: Final = (24, 20, 12, 8, 4, 1)


def write_clip_tokenizer(folder: Path) -> None:
    """CLIP's own vocabulary as CLIPTokenizer files, from the copy that open_clip packages."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    packed = Path(package.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")[1:48895]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(byte) for byte in visible]
    alphabet += [chr(256 + index) for index in range(256 - len(visible))]
    tokens = alphabet + [f"{letter}</w>" for letter in alphabet]
    tokens += ["".join(line.split()) for line in lines] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *lines])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")


def _random_tensors(module: torch.nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights large enough that scores differ between images, as those of a trained model do."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: weight
        if weight.ndim == 0
        else weight.clone().normal_(generator=generator) * (0.2 if weight.ndim > 1 else 0.05)
        + (1.0 if "ln" in name or "norm" in name else 0.0) * name.endswith("weight")
        for name, weight in module.state_dict().items()
    }


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel folder of today: config.json, model.safetensors, tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng():
        model = CLIPModel(CLIPConfig(**CLIP_ARCHITECTURE))
    model.load_state_dict(_random_tensors(model, 1))
    model.save_pretrained(folder)
    write_clip_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def hps_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HPS v2 checkpoint, fp16 under `state_dict`, beside its open_clip_config.json."""
    import open_clip

    folder = tmp_path_factory.mktemp("hps")
    config = {"model_cfg": OPEN_CLIP_ARCHITECTURE}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with torch.random.fork_rng():
        model = open_clip.CLIP(**OPEN_CLIP_ARCHITECTURE)
    tensors = {name: weight.half() for name, weight in _random_tensors(model, 2).items()}
    torch.save({"epoch": 3, "state_dict": tensors}, folder / "HPS_v2_compressed.pt")
    return folder / "HPS_v2_compressed.pt"


@pytest.fixture(scope="session")
def aesthetic_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head in the official key layout, for the width of `clip_folder`."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for layer, before, after in zip(
        (0, 2, 4, 6, 7), AESTHETIC_WIDTHS, AESTHETIC_WIDTHS[1:], strict=False
    ):
        tensors[f"layers.{layer}.weight"] = torch.randn(after, before, generator=generator)
        tensors[f"layers.{layer}.bias"] = torch.randn(after, generator=generator)
    path = tmp_path_factory.mktemp("aesthetic") / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="session")
def tiny_sources(
    clip_folder: Path, hps_checkpoint: Path, aesthetic_head: Path
) -> dict[str, dict[str, Any]]:
    """Reward name -> the settings that point it at the tiny checkpoints."""
    clip = {"source": {"path": str(clip_folder)}}
    hps = {"source": {"path": str(hps_checkpoint)}}
    head = {"source": {"path": str(aesthetic_head)}, "clip": {"path": str(clip_folder)}}
    return {
        "hps_v2": hps,
        "hps_v2_1": hps,
        "pickscore": clip,
        "clipscore": clip,
        "aesthetic": head,
    }


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Tensor]:
    """Smooth random images away from 0 and 1, [count, 3, height, width]."""

    def make(count: int, height: int, width: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(count, 3, 8, 8, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
        noise = torch.rand(count, 3, height, width, generator=generator) - 0.5
        return (0.2 + 0.6 * smooth + 0.1 * noise).clamp(0.05, 0.95)

    return make


@pytest.fixture
def tiny_bundle(
    clip_folder: Path,
    hps_checkpoint: Path,
    aesthetic_head: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The tiny checkpoints where the catalog looks for the source `shapes`."""
    (tmp_path / "shapes-pick").symlink_to(clip_folder)
    (tmp_path / "shapes-hps").symlink_to(hps_checkpoint.parent)
    (tmp_path / "shapes-aesthetic").symlink_to(aesthetic_head.parent)
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    return tmp_path
