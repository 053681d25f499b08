"""The GPU benchmark runs on the CPU with a tiny model, and its real size is the published one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.official_size import OFFICIAL, text_encoder, tokenizer, unet, vae
from benchmarks.results import read_csv
from shortft_core.spec import Source


def test_the_real_size_has_the_published_parameters() -> None:
    with torch.device("meta"):
        parts = {"unet": unet(OFFICIAL), "vae": vae(OFFICIAL), "text": text_encoder(OFFICIAL)}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text": 123_060_480}


def test_the_tokenizer_is_clips() -> None:
    assert tokenizer()("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_a_tiny_model_runs_the_same_code(tmp_path: Path) -> None:
    path = tmp_path / "gpu.csv"
    names = ("direct", "shortft stage 1")
    chosen = [word for name in names for word in ("--only", name)]
    gpu.main(["--tiny", *chosen, "--batch-sizes", "1", "--timed", "1", "--csv", str(path)])
    rows = {row["method"]: row for row in read_csv(path)}
    assert {name: float(row["units"]) for name, row in rows.items()} == {
        "direct": 12,
        "shortft stage 1": 55,
    }
    assert all(float(row["seconds_per_image"]) > 0 for row in rows.values())
    flops = {name: float(row["teraflop_per_image"]) for name, row in rows.items()}
    assert 0 < flops["direct"] < flops["shortft stage 1"]
    assert {row["flop_utilization"] for row in rows.values()} == {""}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no CUDA device was found" in capsys.readouterr().err


def test_utilization_needs_a_known_peak() -> None:
    cpu = torch.device("cpu")
    assert gpu.peak_of(cpu, None) is None
    assert gpu.peak_of(cpu, 2.5) == 2.5


def test_all_methods_are_measured() -> None:
    types = {method.type for method, _ in gpu.variants(OFFICIAL, Source(path="lora")).values()}
    from shortft_core import catalog

    assert types == set(catalog.METHODS)
