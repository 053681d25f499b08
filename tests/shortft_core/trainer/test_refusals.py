"""What a job asks in vain is refused before any step, and leaves no run behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shortft_core.errors import UserError
from shortft_core.events import Event, LogLine, StepMetrics
from shortft_core.run import RunFolder, run_job
from shortft_core.spec.read import parse_spec


def content(folder: Path, few_step: Path, **method: Any) -> dict[str, Any]:
    options = {"type": "shortft", "shortcut": {"path": str(few_step)}, "steps": 8, "rank": 2}
    return {
        "base_model": {"path": str(folder)},
        "method": options | {"segments": 2, "updates": 2, "batch_size": 1} | method,
        "rewards": [{"name": "brightness"}],
        "prompts": {"inline": ["a", "a red circle and a blue star and a red star"]},
        "evaluation": {"prompts": {"inline": ["a star"]}, "held_out": [], "count": 1},
    }


@pytest.mark.parametrize(
    ("method", "field", "problem"),
    [
        ({"rank": 9}, "method.rank", "rank 9 does not fit .* 8 wide"),
        ({"shortcut": {"path": "nowhere"}}, "method.shortcut", "nowhere does not exist"),
        ({"steps": 12, "segments": 4, "updates": 4}, "method.steps", "crosses the border 500"),
        ({"updates": 1}, "method.updates", "1 updates cannot be shared by 2 stages"),
    ],
)
def test_what_cannot_run_is_refused_before_any_step(
    tiny_folder: Path,
    few_step: Path,
    tmp_path: Path,
    method: dict[str, Any],
    field: str,
    problem: str,
) -> None:
    events: list[Event] = []
    spec = parse_spec(content(tiny_folder, few_step, **method))
    with pytest.raises(UserError, match=problem) as caught:
        run_job(spec, RunFolder(tmp_path / "run"), emit=events.append)
    assert caught.value.field == field
    assert not any(isinstance(event, StepMetrics) for event in events)
    assert not RunFolder(tmp_path / "run").spec.exists(), "the job can be corrected and run again"


def test_prompts_beyond_the_token_limit_are_truncated_with_a_warning(
    tiny_folder: Path, few_step: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    spec = parse_spec(content(tiny_folder, few_step))
    state = run_job(spec, RunFolder(tmp_path / "run"), emit=events.append)
    assert state.update == 2
    (warning,) = (e for e in events if isinstance(e, LogLine) and "token limit" in e.message)
    assert warning.level == "warn"
    assert "1 exceed the token limit and are truncated" in warning.message
    assert "a red circle and a blue star and a red star" in warning.message


def test_a_folder_of_another_job_is_refused(
    tiny_folder: Path, few_step: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    run_job(parse_spec(content(tiny_folder, few_step)), folder, emit=lambda _: None)
    before = folder.events.read_bytes()
    other = parse_spec(content(tiny_folder, few_step, first_segment_grad_steps=2))
    with pytest.raises(UserError, match="holds a run of another specification") as caught:
        run_job(other, folder, emit=lambda _: None)
    assert caught.value.field == "run folder"
    assert folder.events.read_bytes() == before
