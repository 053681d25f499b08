"""What is timed really makes the pictures, in both ways."""

from __future__ import annotations

import pytest

from benchmarks import serving


def test_every_round_is_compared_with_its_own_single_requests() -> None:
    rows = serving.rows_of({"one by one": [1.0, 4.0, 1.0], "one batch": [3.0, 4.0, 2.0]})
    assert rows[1]["to_one_by_one"] == pytest.approx(2.0)
    assert rows[1]["images_per_second"] == 3.0
    assert rows[0]["to_one_by_one"] == 1.0


def test_both_ways_are_measured_on_the_real_process() -> None:
    rates = serving.measure(1, steps=4, count=2)
    assert [len(found) for found in rates.values()] == [1, 1]
    assert all(rate > 0 for found in rates.values() for rate in found)
