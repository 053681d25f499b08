"""Updates that fit a budget of seconds, stage by stage, with and without a prefix pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.alignment import budget, cells
from benchmarks.alignment.budget import Calibration, Kind, Timing
from benchmarks.alignment.cells import Cell
from benchmarks.results import write_csv
from shortft_core.spec import ShortFT

KINDS: dict[Kind, float] = {"new": 2.0, "reused": 0.5}
SHORTFT: dict[tuple[str, int, Kind], float] = {
    ("shortft", 1, "new"): 1.0,
    **{("shortft", stage, kind): s for stage in (2, 3, 4) for kind, s in KINDS.items()},
}


@pytest.fixture(autouse=True, scope="module")
def _budget() -> Iterator[None]:
    """A hundred updates, shared 40/20/20/20 %, whatever the comparison gives them."""
    shared = ShortFT(stage_shares=(0.4, 0.2, 0.2, 0.2), batch_size=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "BUDGET_UPDATES", 100)
        patch.setattr(cells, "SWEEP_SHARE", 0.5)
        pooled = shared.model_copy(update={"prefix_pool": 32})
        patch.setitem(cells.VARIANTS, "shortft", pooled)
        alone = shared.model_copy(update={"ablation": "no_tlora"})
        patch.setitem(cells.VARIANTS, "shortft_no_tlora", alone)
        yield


def calibration(**others: float) -> Calibration:
    one_stage: dict[tuple[str, int, Kind], float] = {
        (name, 1, "new"): seconds for name, seconds in others.items()
    }
    return Calibration(SHORTFT | one_stage)


def test_the_pool_is_filled_by_the_first_eight_updates_of_each_stage() -> None:
    # 100 updates: 40 + 3 x (8 that fill a pool of 32 by batches of 4, and 12 that reuse it).
    assert calibration().budget_seconds() == 40 + 3 * (8 * 2 + 12 * 0.5)


def test_seconds_after_an_update() -> None:
    known = calibration()
    assert known.seconds_after("shortft", 0, 100) == 0
    assert known.seconds_after("shortft", 40, 100) == 40
    assert known.seconds_after("shortft", 50, 100) == 40 + 8 * 2 + 2 * 0.5


def test_shortft_gets_its_hundred_updates_back() -> None:
    assert calibration().updates_for(Cell("hps", "shortft", 0)) == 100


def test_without_a_pool_every_update_is_new() -> None:
    stages: dict[tuple[str, int, Kind], float] = {
        ("shortft_no_tlora", stage, "new"): float(stage) for stage in (1, 2, 3, 4)
    }
    known = Calibration(SHORTFT | stages)
    assert known.seconds_after("shortft_no_tlora", 10, 10) == 4 * 1 + 2 * 2 + 2 * 3 + 2 * 4


@given(st.floats(0.05, 10), st.booleans())
def test_the_updates_are_the_most_that_fit(seconds: float, sweep: bool) -> None:  # noqa: FBT001
    known = calibration(drtune=seconds)
    cell = Cell("hps", "drtune", 0, 1e-3 if sweep else None)
    limit = known.budget_seconds(0.5 if sweep else 1.0)
    updates = known.updates_for(cell)
    assert known.seconds_after("drtune", updates, updates) <= limit
    assert known.seconds_after("drtune", updates + 1, updates + 1) > limit


def test_it_is_read_from_the_table_of_the_calibration(tmp_path: Path) -> None:
    path = tmp_path / "calibration.csv"
    measured: dict[tuple[str, int, Kind], float] = SHORTFT | {("refl", 1, "new"): 0.25}
    timings = [
        Timing(*key, (seconds * 9, seconds, 2 * seconds), (60.0, 50.0, 200.0), 100.0)
        for key, seconds in measured.items()
    ]
    write_csv(path, [timing.row(threads=1) for timing in timings])
    known = Calibration.read(path)
    # The fastest per unit is the last: twice the seconds for four times the units.
    assert known.budget_seconds() == pytest.approx(calibration().budget_seconds())
    assert known.seconds_after("refl", 8, 8) == pytest.approx(2.0)
    assert known.knows("refl")
    assert not known.knows("drtune")
