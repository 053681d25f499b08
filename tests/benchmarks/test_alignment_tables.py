"""Tables from finished cells, whichever are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.alignment import curves, records, sweep, tables
from benchmarks.alignment.cells import Cell, Folders, sweep_cells
from benchmarks.alignment.records import Point, Record
from benchmarks.results import read_csv

JUDGES = ("hps_v2", "pickscore", "aesthetic", "symmetry", "compressibility", "oracle")


def record(variant: str, seed: int, target: float, *, slope: float = 0.01) -> Record:
    point = [
        Point(update=u, seconds=10.0 * u, base={"target": 0.5}, tuned={"target": 0.5 + slope * u})
        for u in (1, 2, 3, 4)
    ]
    return Record(
        setting="hps",
        variant=variant,
        seed=seed,
        updates=4,
        curve=tuple(point),
        scores={"target": (target, target)} | dict.fromkeys(JUDGES, (0.5,)),
        diversity=0.2,
    )


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "results", tmp_path / "state")


def store(folders: Folders, *found: Record) -> None:
    for one in found:
        records.write(folders.record(Cell(one.setting, one.variant, one.seed)), one)


def line(folders: Folders, variant: str) -> list[str]:
    """The row of a variant in the table of the setting `hps`."""
    section = tables.sections(folders)["alignment hps"]
    row = next(line for line in section.splitlines() if line.startswith(f"| `{variant}`"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_student_interval_of_three_seeds() -> None:
    found = tables.estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    # t(0.975, 2) = 4.302653, the standard deviation is 1.
    assert found.half_width == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


def test_rows_state_how_many_seeds_they_hold(folders: Folders) -> None:
    store(folders, record("shortft", 0, 0.8), record("shortft", 1, 0.9), record("refl", 0, 0.7))
    tables.write_tables(folders)
    assert line(folders, "shortft")[:4] == ["`shortft`", "2", "4", "0.8500 ± 0.6353"]
    assert line(folders, "refl")[:4] == ["`refl`", "1", "4", "0.7000"]
    assert line(folders, "drtune")[:4] == ["`drtune`", "0", "-", "-"]
    rows = {(row["variant"], row["judge"]): row for row in read_csv(folders.results / "tables.csv")}
    assert rows["shortft", "target"]["mean"] == "0.85"
    assert rows["refl", "oracle"]["half_width_95"] == ""


def test_nothing_finished_is_a_table_too(folders: Folders) -> None:
    tables.write_tables(folders)
    assert line(folders, "shortft")[1] == "0"
    assert not (folders.results / "tables.csv").exists()


def test_a_run_that_broke_counts_as_an_alarm_without_a_score(folders: Folders) -> None:
    broken = record("refl", 0, 0.0).model_copy(update={"outcome": "diverged", "scores": {}})
    store(folders, broken, record("refl", 1, 0.75))
    tables.write_tables(folders)
    assert line(folders, "refl")[1:4] == ["2", "4", "0.7500"]
    assert line(folders, "refl")[-1] == "1"


@pytest.mark.parametrize(
    ("gain", "seconds"), [(0.0, 0.0), (0.01, 10.0), (0.025, 25.0), (0.041, None)]
)
def test_time_to_a_gain_lies_on_the_lines_between_evaluations(
    gain: float, seconds: float | None
) -> None:
    found = curves.seconds_to_reach(record("shortft", 0, 0.8), gain)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_times_are_compared_with_drtune_of_the_same_seed() -> None:
    runs = {
        "drtune": [record("drtune", 0, 0.8), record("drtune", 1, 0.8, slope=0.03)],
        "shortft": [record("shortft", 0, 0.8, slope=0.02), record("shortft", 1, 0.8, slope=0.02)],
    }
    assert "| `shortft` | 1 of 2 | 20.0 |" in curves.reaching_table(runs)
    assert curves.reaching_table({"shortft": runs["shortft"]}) == ""
    # Where DRTune lost there is nothing to reach.
    fallen = {**runs, "drtune": [record("drtune", 0, 0.8, slope=-0.01)]}
    assert curves.reaching_table(fallen) == ""


def test_curves_are_drawn_for_what_is_there(folders: Folders) -> None:
    curves.draw("hps", {"shortft": [], "refl": []}, folders)
    assert not curves.curve_path("hps", folders).exists()
    curves.draw("hps", {"shortft": [record("shortft", 0, 0.8)], "refl": []}, folders)
    assert curves.curve_path("hps", folders).stat().st_size > 1000


def tried(rate: float, target: float, *alerts: str) -> Record:
    return record("refl", 100, target).model_copy(update={"learning_rate": rate, "alerts": alerts})


def test_the_best_rate_without_an_alarm_is_chosen() -> None:
    loud = tried(3e-3, 0.9, "reward_divergence@9")
    quiet = [tried(3e-4, 0.6), tried(1e-3, 0.7)]
    assert sweep.choose([loud, *quiet]) is quiet[1]
    assert sweep.choose([loud]) is loud
    assert sweep.choose([loud.model_copy(update={"scores": {}})]) is None


def test_a_rate_is_chosen_once_all_of_them_were_tried(folders: Folders) -> None:
    cells = [cell for cell in sweep_cells() if cell.variant == "refl"]
    best = cells[1].learning_rate
    for cell in cells:
        assert sweep.chosen_rate("refl", folders) is None
        target = 0.7 if cell.learning_rate == best else 0.6
        records.write(folders.record(cell), tried(cell.learning_rate or 0.0, target))
        sweep.write_choices(folders)
    assert sweep.chosen_rate("refl", folders) == best
    assert sweep.chosen_rate("drtune", folders) is None
