"""A small distillation on the tiny model: 8 steps, 2 segments, so one jump."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortft_core.spec.distil import DistilSpec


@pytest.fixture(scope="session")
def tiny_spec(tiny_folder: Path) -> Callable[..., DistilSpec]:
    """The specification, with changes."""

    def make(**changes: Any) -> DistilSpec:
        content = {
            "base_model": {"path": str(tiny_folder)},
            "segments": 2,
            "steps": 8,
            "guidance_scale": 3.0,
            "rank": 2,
            "trajectories": 6,
            "updates": 4,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "checkpoint_every": 2,
            "prompts": {"inline": ["a red circle", "a blue star"]},
            "evaluation": {"prompts": {"inline": ["a red star"]}, "count": 3},
        }
        return DistilSpec.model_validate({**content, **changes})

    return make
