"""Two processes with one prompt each make the update of one process with two prompts."""

from __future__ import annotations

import json
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import load_file

from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.spec import AlignSpec
from tests.shortft_core.trainer.train_jobs import join, train_all

SHORTFT: Final = {"type": "shortft", "stage_shares": [0.5, 0.5], "segments": 2}
METHODS: Final[dict[str, dict[str, Any]]] = {
    "shortft": SHORTFT | {"updates": 3, "prefix_pool": 4},
    "shortft with accumulation": SHORTFT | {"updates": 2, "accumulation": 2},
    "draft_k": {"type": "draft_k", "gradient_steps": 2, "updates": 2},
    "drtune": {"type": "drtune", "trained_steps": 2, "updates": 2},
    "alignprop": {"type": "alignprop", "updates": 2},
}


def jobs(few_step: Path, batch_size: int) -> dict[str, AlignSpec]:
    """The jobs of METHODS."""
    common: dict[str, Any] = {
        "steps": 4,
        "guidance_scale": 2.0,
        "accumulation": 1,
        "learning_rate": 1e-3,
        "rank": 2,
        "batch_size": batch_size,
    }
    specs = {}
    for name, options in METHODS.items():
        own: dict[str, Any] = (
            {"shortcut": {"path": str(few_step)}} if options["type"] == "shortft" else {}
        )
        specs[name] = AlignSpec.model_validate(
            {
                "base_model": {"path": "tiny"},
                "method": common | own | options,
                "rewards": [{"name": "brightness"}],
                "prompts": {"inline": ["a red circle", "a blue star", "a red star"]},
            }
        )
    return specs


@pytest.fixture(scope="module")
def results(
    tiny: StableDiffusion, few_step: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Where one process, and where two of them, left what they trained.

    The two are forks of this one, which has everything imported: the launchers are tried in
    tests/worker/train/test_several_devices.py.
    """
    folder = tmp_path_factory.mktemp("parallel")
    found = {processes: folder / str(processes) for processes in (1, 2)}
    ranks = [
        get_context("fork").Process(
            target=be_one_of_two, args=(rank, jobs(few_step, 1), tiny, found[2]), daemon=True
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    try:
        train_all(jobs(few_step, 2), tiny, found[1])
        for process in ranks:
            process.join(timeout=90)
        assert [process.exitcode for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
            process.join()
    return found


def be_one_of_two(
    rank: int, specs: dict[str, AlignSpec], model: StableDiffusion, out: Path
) -> None:
    """The life of one process."""
    join(rank, 2, out.with_name("meeting-point"))
    train_all(specs, model, out)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_make_the_update_of_one(results: dict[int, Path], name: str) -> None:
    alone = load_file(results[1] / name / "0.safetensors")
    for rank in (0, 1):
        together = load_file(results[2] / name / f"{rank}.safetensors")
        assert alone.keys() == together.keys()
        for key, weight in alone.items():
            assert (together[key] - weight).abs().max() <= 1e-10 * weight.abs().max()
    moved = [weight for index, weight in alone.items() if int(index) % 2]
    assert any(up.any() for up in moved), "up-projections start at zero"


@pytest.mark.parametrize("name", METHODS)
def test_the_metrics_are_those_of_all_images(results: dict[int, Path], name: str) -> None:
    (alone, together) = (
        json.loads((results[count] / name / "0.json").read_text()) for count in (1, 2)
    )
    assert len(alone) == len(together) == METHODS[name]["updates"]
    for one, two in zip(alone, together, strict=True):
        assert two["reward"] == pytest.approx(one["reward"], rel=1e-6)
        assert two["terms"] == pytest.approx(one["terms"], rel=1e-6)
        assert two["grad_norms"] == pytest.approx(one["grad_norms"], rel=1e-5)
        assert two["images_seen"] == one["images_seen"]
        assert two["stage"] == one["stage"]


def test_the_stage_changes_in_every_process(results: dict[int, Path]) -> None:
    for rank in (0, 1):
        steps = json.loads((results[2] / "shortft" / f"{rank}.json").read_text())
        assert [step["stage"] for step in steps] == [1, 1, 2]
