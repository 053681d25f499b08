"""What a run takes from accelerate, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState, GradientState

from shortft_core.parallel import any_process, choose_accelerator, decide, is_main_process


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """accelerate reads its environment once in a process: here in each test, for it alone."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_launchers_precision_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Autocast would lose gradients between a rollout and the pass after it."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("SHORTFT_DEVICE", "cpu")
    accelerator, device = choose_accelerator()
    assert is_main_process()
    assert decide(accelerator, "a") == "a"
    assert any_process(accelerator, True)
    found = accelerator.mixed_precision, accelerator.num_processes, str(device)
    assert found == ("no", 1, "cpu")
