"""The calibration times what a run does: new images, images from the pool, stage by stage."""

from __future__ import annotations

import pytest

from benchmarks.alignment import calibrate, cells
from shortft_core.spec import ShortFT

SHORT = ShortFT(steps=8, rank=2, batch_size=1, ablation="naive_jump", prefix_pool=4)


def test_each_kind_of_update_makes_its_own_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cells.VARIANTS, "short", SHORT)
    found = list(calibrate.timings("short", timed=1))
    # Two steps a segment; a guided call costs 2, attached 6, and a naive jump is such a call.
    # A later stage continues from where the earlier one stopped: two more calls.
    assert {(timing.stage, timing.kind): timing.units[0] for timing in found} == {
        (1, "new"): 2 + 6 + 3 * 12,
        (2, "new"): 3 * 2 + 6 + 2 * 12,
        (2, "reused"): 6 + 2 * 12,
        (3, "new"): 2 * 2 + 6 + 12,
        (3, "reused"): 6 + 12,
        (4, "new"): 2 * 2 + 6,
        (4, "reused"): 6,
    }
    assert {len(timing.seconds) for timing in found} == {1}
    assert all(min(timing.seconds) > 0 for timing in found)
