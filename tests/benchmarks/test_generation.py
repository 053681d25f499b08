"""What is timed draws the same pictures, merged or not."""

from __future__ import annotations

import pytest

from benchmarks import generation


def test_merged_and_unfused_draw_the_same_and_not_the_base() -> None:
    made = generation.samplers(steps=4, batch_size=1)
    drawn = {name: sampler.images(["a red circle"], [3]) for name, sampler in made.items()}
    assert (drawn["merged"] - drawn["unfused"]).abs().max() < 1e-4
    assert (drawn["merged"] - drawn["base"]).abs().max() > 1e-2


def test_every_round_is_compared_with_its_own_base() -> None:
    rows = generation.rows_of({"base": [1.0, 4.0, 1.0], "merged": [1.5, 4.0, 1.1]})
    assert rows[1]["to_base"] == pytest.approx(1.1)
    assert rows[1]["seconds_per_image"] == 1.5
    assert rows[0]["to_base"] == 1.0
