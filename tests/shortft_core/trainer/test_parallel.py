"""Two processes with one prompt each make the update of one process with two prompts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from safetensors.torch import load_file

SCRIPT: Final = Path(__file__).with_name("train_jobs.py")
SHORTFT: Final = {"type": "shortft", "stage_shares": [0.5, 0.5], "segments": 2}
METHODS: Final[dict[str, dict[str, Any]]] = {
    "shortft": SHORTFT | {"updates": 3, "prefix_pool": 4},
    "shortft with accumulation": SHORTFT | {"updates": 2, "accumulation": 2},
    "draft_k": {"type": "draft_k", "gradient_steps": 2, "updates": 2},
    "drtune": {"type": "drtune", "trained_steps": 2, "updates": 2},
    "alignprop": {"type": "alignprop", "updates": 2},
}


def jobs(path: Path, few_step: Path, batch_size: int) -> Path:
    """The jobs of METHODS as a file."""
    common: dict[str, Any] = {
        "steps": 4,
        "guidance_scale": 2.0,
        "rank": 2,
        "batch_size": batch_size,
    }
    contents: dict[str, Any] = {}
    for name, options in METHODS.items():
        own: dict[str, Any] = (
            {"shortcut": {"path": str(few_step)}} if options["type"] == "shortft" else {}
        )
        contents[name] = {
            "base_model": {"path": "tiny"},
            "method": common | own | options,
            "rewards": [{"name": "brightness"}],
            "prompts": {"inline": ["a red circle", "a blue star", "a red star"]},
        }
    path.write_text(json.dumps(contents))
    return path


@pytest.fixture(scope="module")
def results(
    tiny_folder: Path, few_step: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Where one process, and where two of them, left what they trained."""
    folder = tmp_path_factory.mktemp("parallel")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = {}
    for processes, launcher in {1: [], 2: launch}.items():
        found[processes] = folder / str(processes)
        file = jobs(folder / f"{processes}.json", few_step, batch_size=2 // processes)
        paths = [str(path) for path in (SCRIPT, file, tiny_folder, found[processes])]
        done = subprocess.run(
            [sys.executable, *launcher, *paths],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
    return found


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
