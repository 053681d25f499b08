"""The card's minutes come from the time stamps of the logs, stops left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapes import write_card
from shapes.training import Recipe

LOG = """2026-01-01 10:00:00,000 part 50 loss 1.0 0.1 s/step
2026-01-01 10:01:00,000 part 100 loss 0.9 0.1 s/step
2026-01-01 10:01:30,000 other 50 loss 0.9 0.1 s/step
2026-01-01 12:00:00,000 part 150 loss 0.8 0.1 s/step
2026-01-01 12:02:00,000 part 200 loss 0.7 0.1 s/step
"""


def test_minutes_leave_out_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "part.log").write_text(LOG)
    monkeypatch.setattr(write_card, "CARDS", tmp_path)
    recipe = Recipe(name="part", steps=200, learning_rate=1.0, seed=0)
    assert write_card.minutes(recipe) == pytest.approx(3.0)
