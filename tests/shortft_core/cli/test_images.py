"""`shortft generate` with an adapter: it says what it serves, and shows the base beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from shortft_core.adapter_card import Origin
from shortft_core.adapters import AdapterBank
from shortft_core.cli import app
from shortft_core.errors import UserError
from shortft_core.export import noise_schedule, save_adapter
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.schedule import inference_plan
from shortft_core.spec import Source

Generate = Callable[..., str]


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_folder: Path) -> Generate:
    """Runs `shortft generate` on the tiny model, in an empty folder on the CPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHORTFT_DEVICE", "cpu")

    def run(*arguments: str) -> str:
        command = ("generate", "a red", "--model", str(tiny_folder), *arguments)
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return run


@pytest.fixture
def adapter(load_tiny: Callable[..., StableDiffusion], tiny_folder: Path, tmp_path: Path) -> Path:
    """Two branches on a chain of six steps: 1 on the first three, both on the last."""
    model = load_tiny()
    bank = AdapterBank(model.denoiser, branches=2, rank=2)
    for weight in bank.parameters(1):
        torch.nn.init.constant_(weight, 0.3)
    plan = inference_plan(6, 2)
    origin = Origin(
        base_model=Source(path=str(tiny_folder)),
        base_sha256=model.fingerprint,
        method="shortft",
        guidance_scale=2.0,
        rewards=("symmetry",),
        spec_sha256="0" * 64,
        noise_schedule=noise_schedule(model, plan),
    )
    save_adapter(tmp_path / "adapter", bank, plan, origin)
    return tmp_path / "adapter"


def test_the_chain_of_an_adapter_is_told(generate: Generate, adapter: Path) -> None:
    printed = generate("--adapter", str(adapter))
    assert "6 steps at guidance 2; branches: 831-499 1, 333-167 base, 1 1+2" in printed


def test_the_base_stands_beside_the_adapter(
    generate: Generate, adapter: Path, tmp_path: Path
) -> None:
    name = "0000-4.png"
    generate("--adapter", str(adapter), "--compare-base", "--seed", "4", "--out", "both")
    generate("--adapter", str(adapter), "--seed", "4", "--out", "tuned")
    generate("--steps", "6", "--guidance-scale", "2", "--seed", "4", "--out", "base")
    both, tuned, base = (
        np.asarray(Image.open(tmp_path / folder / name)) for folder in ("both", "tuned", "base")
    )
    assert np.array_equal(both, np.concatenate([base, tuned], axis=1))
    assert not np.array_equal(base, tuned)


def test_there_has_to_be_an_adapter_to_compare(generate: Generate) -> None:
    with pytest.raises(UserError, match="no adapter to compare with"):
        generate("--compare-base")
