"""What a run takes from accelerate, and what it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
from shortft_core.parallel import any_process, choose_accelerator, decide, is_main_process
accelerator, device = choose_accelerator()
assert is_main_process() and decide(accelerator, "a") == "a" and any_process(accelerator, True)
print(accelerator.mixed_precision, accelerator.num_processes, device)
"""


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_launchers_precision_changes_nothing(precision: str) -> None:
    """Autocast would lose gradients between a rollout and the pass after it."""
    environment = {
        "ACCELERATE_MIXED_PRECISION": precision,
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "SHORTFT_DEVICE": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["no", "1", "cpu"]
