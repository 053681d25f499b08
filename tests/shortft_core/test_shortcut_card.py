"""The card: its figures, its verdict, and what it refuses to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shortft_core.errors import ArtifactError, UserError
from shortft_core.shortcut_card import JumpError, Report, RewardShift, ShortcutCard, read_card
from shortft_core.spec import Source


def report(errors: tuple[float, ...] = (0.3, 0.6), shortened: float = 1.0) -> Report:
    return Report(
        trajectories=4,
        jumps=tuple(
            JumpError(
                timestep=741 - 260 * number,
                next_timestep=501 - 260 * number,
                rmse=error,
                guided_naive_rmse=1.0,
                unguided_naive_rmse=2.0,
            )
            for number, error in enumerate(errors)
        ),
        image_rmse=0.1,
        naive_image_rmse=0.2,
        rewards={
            "brightness": RewardShift(
                full_mean=1.0, full_std=0.5, shortened_mean=shortened, naive_mean=0.0
            )
        },
    )


def card(**changes: Any) -> ShortcutCard:
    fields: dict[str, Any] = {
        "kind": "shortcut",
        "base_model": Source(name="shapes"),
        "base_sha256": "00",
        "steps": 50,
        "segments": 4,
        "timesteps": (981, 961),
        "steps_offset": 1,
        "guidance_scale": 3.0,
        "jumps": ((741, 501),),
        "rank": 8,
        "file": "shortcut.safetensors",
        "sha256": "11",
        "report": report(),
        "spec_sha256": "22",
    }
    return ShortcutCard.model_validate({**fields, **changes})


def test_ratios_are_root_mean_squares() -> None:
    assert report().rms_ratio == pytest.approx((0.225) ** 0.5)
    assert report().unguided_rms_ratio == pytest.approx(report().rms_ratio / 2)


def test_shifts_are_in_standard_deviations_of_the_full_chain() -> None:
    score = report(shortened=1.1).rewards["brightness"]
    assert score.shift == pytest.approx(0.2)
    assert score.naive_shift == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        (report(), 0),
        (report(errors=(0.2, 1.01)), 1),
        (report(errors=(0.81, 0.81)), 1),
        (report(shortened=0.85), 1),
        (report(shortened=1.15), 1),
        (report(errors=(2.0, 2.0), shortened=2.0), 4),
    ],
)
def test_each_missed_goal_is_named(figures: Report, missed: int) -> None:
    assert len(figures.missed_goals()) == missed


def test_a_card_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "shortcut.json"
    path.write_text(card().model_dump_json())
    assert read_card(path) == card()


def test_no_card_and_no_json_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "shortcut.json"
    with pytest.raises(UserError, match="is missing"):
        read_card(path)
    path.write_text('{"version": 1}')
    with pytest.raises(ArtifactError, match="is not a shortcut card"):
        read_card(path)
