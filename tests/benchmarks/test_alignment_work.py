"""A cell that is killed anywhere ends as one that never was; the real job runs, only shorter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.alignment import budget, cells, pictures, records, work
from benchmarks.alignment.cells import Cell, Folders, Scale
from benchmarks.alignment.records import Record
from shortft_core.events import Event, StepMetrics
from shortft_core.spec import DRTune

SCALE = Scale(curve_points=2, curve_prompts=1, final_prompts=2, final_seeds=2, pictured_prompts=2)
CELL = Cell("symmetry_reg", "drtune", 0, scale=SCALE)
SHORT = DRTune(steps=3, trained_steps=2, rank=2, batch_size=1, checkpoint_every=1)
UPDATES = 3


class KilledError(Exception):
    """Stands for whatever ends a process between two of its reports."""


def shorten(patch: pytest.MonkeyPatch) -> None:
    """A chain of three steps, and a budget of a hundred updates."""
    patch.setitem(cells.VARIANTS, "drtune", SHORT)
    patch.setattr(budget, "BUDGET_UPDATES", 100)


@pytest.fixture(autouse=True)
def _short_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def new_folders(root: Path, *, learning_rate: float = 0.003) -> Folders:
    """A calibration and a sweep that make the cell three updates long."""
    folders = Folders(root / "results", root / "state")
    folders.results.mkdir(parents=True)
    stages = "".join(
        f"shortft,{stage},{kind},0.03\n" for stage in (1, 2, 3, 4) for kind in ("new", "reused")
    )
    folders.calibration.write_text(f"variant,stage,kind,fastest\n{stages}drtune,1,new,1.0\n")
    folders.sweep.write_text(f"variant,learning_rate,chosen\ndrtune,{learning_rate},yes\n")
    return folders


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Record, list[Event]]]:
    """The record and the events of a run that nothing stopped."""
    heard: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        folders = new_folders(tmp_path_factory.mktemp("straight"))
        yield work.run_cell(CELL, folders, emit=heard.append), heard


def found(record: Record) -> Record:
    return record.model_copy(update={"machine": {}})


def killed_after(count: int, folders: Folders) -> list[Event]:
    """Runs the cell until it has reported `count` times, and returns the reports."""
    heard: list[Event] = []

    def emit(event: Event) -> None:
        if len(heard) == count:
            raise KilledError
        heard.append(event)

    with pytest.raises(KilledError):
        work.run_cell(CELL, folders, emit=emit)
    return heard


def test_what_a_cell_finds(straight: tuple[Record, list[Event]]) -> None:
    record, _ = straight
    assert (record.updates, record.learning_rate, record.budget_seconds) == (UPDATES, 0.003, 3.0)
    assert [point.update for point in record.curve] == [2, 3]
    assert [point.seconds for point in record.curve] == [2.0, 3.0]
    assert {"target", *work.JUDGES} <= record.scores.keys()
    assert {len(scores) for scores in record.scores.values()} == {4}
    weights = {"symmetry": 1.0, "hps_v2": 0.1, "pickscore": 1.0}
    target = sum(weight * record.mean(name) for name, weight in weights.items())
    assert record.mean("target") == pytest.approx(target, abs=1e-5)
    assert 0 < (record.diversity or 0) < 1


def test_a_cell_that_is_killed_again_and_again_ends_with_the_same_record(
    straight: tuple[Record, list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, heard = straight
    folders = new_folders(tmp_path)
    trained = [sum(isinstance(e, StepMetrics) for e in killed_after(n, folders)) for n in (4, 8)]
    assert min(trained) > 0
    assert sum(trained) < sum(isinstance(event, StepMetrics) for event in heard) + len(trained)
    with monkeypatch.context() as patch:
        patch.setattr(work, "load_adapter", _killed)
        with pytest.raises(KilledError):
            work.run_cell(CELL, folders)
    assert not folders.record(CELL).exists()
    last: list[Event] = []
    assert found(work.run_cell(CELL, folders, emit=last.append)) == found(record)
    assert not any(isinstance(event, StepMetrics) for event in last)


def _killed(*_: object, **__: object) -> None:
    raise KilledError


def test_a_finished_cell_is_not_repeated(
    straight: tuple[Record, list[Event]], tmp_path: Path
) -> None:
    folders = new_folders(tmp_path)
    records.write(folders.record(CELL), straight[0])
    assert work.run_cell(CELL, folders) == straight[0]
    assert not folders.run(CELL).exists()


def test_a_run_that_breaks_is_a_result(tmp_path: Path) -> None:
    folders = new_folders(tmp_path, learning_rate=1e30)
    record = work.run_cell(CELL, folders)
    assert record.outcome == "diverged"
    assert record.scores == {}
    assert any(alert.startswith("nan@") for alert in record.alerts)
    assert records.read(folders.record(CELL)) == record


def test_only_one_process_has_a_cell(tmp_path: Path) -> None:
    folders = new_folders(tmp_path)
    with work.claimed(CELL, folders) as first, work.claimed(CELL, folders) as second:
        assert (first, second) == (True, False)
    with work.claimed(CELL, folders) as again:
        assert again


def test_the_untuned_model_sees_the_same_pictures_and_is_drawn(tmp_path: Path) -> None:
    scale = Scale(final_prompts=1, final_seeds=2, pictured_prompts=1)
    folders, cell = new_folders(tmp_path), Cell("symmetry_reg", "base", 0, scale=scale)
    record = work.run_cell(cell, folders)
    assert (record.updates, record.curve, len(record.scores["target"])) == (0, (), 2)
    (sheet,) = pictures.write_sheets(folders)
    with Image.open(folders.run(cell) / pictures.STRIP) as strip, Image.open(sheet) as page:
        assert strip.size == (64, 64)
        assert page.height == pictures.HEAD + 64 * pictures.SCALE + pictures.GAP
