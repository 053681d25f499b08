"""`shortft distil` as a user types it, on the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from shortft_core.cli import app
from shortft_core.errors import UserError
from shortft_core.shortcut_card import CARD_FILE, read_card

Shortft = Callable[..., str]


@pytest.fixture
def shortft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shortft:
    """Runs the command in a folder of its own and returns what it printed."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"COLUMNS": "200"})

    def run(*arguments: str) -> str:
        result = runner.invoke(app, ["distil", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def content(tiny_folder: Path) -> dict[str, Any]:
    return {
        "kind": "distil",
        "base_model": {"path": str(tiny_folder)},
        "segments": 2,
        "steps": 4,
        "rank": 2,
        "trajectories": 2,
        "updates": 1,
        "batch_size": 2,
        "prompts": {"inline": ["a red circle"]},
        "evaluation": {"prompts": {"inline": ["a red star"]}, "count": 2},
    }


def test_it_says_where_the_shortcut_is_and_how_good(
    shortft: Shortft, content: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "jumps.yaml").write_text(yaml.safe_dump(content))
    printed = shortft("jumps.yaml")
    card = read_card(tmp_path / "runs" / "jumps" / CARD_FILE)
    assert f"error to guided naive jumps: {card.report.rms_ratio:.3f}" in printed
    assert "shortcut: runs/jumps" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: distil", "base_model: Field required"),
        ("{kind: distil, base_model: {name: x}, prompts: {inline: [a]}, steps: 4}", "needs 8"),
        ("{base_model: {name: x}, rewards: [], prompts: {inline: [a]}}", "method"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    shortft: Shortft, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "jumps.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        shortft("jumps.yaml")
