"""The runner starts processes, records those that fail, and ends with its children."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.alignment import runner
from benchmarks.alignment.__main__ import parser
from benchmarks.alignment.cells import Cell, Folders, sweep_cells

FIRST, SECOND = Cell("hps", "base", 0), Cell("symmetry", "base", 0)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
    return Folders(tmp_path / "results", tmp_path / "state")


def work_with(script: str, monkeypatch: pytest.MonkeyPatch, folders: Folders) -> None:
    """Makes a cell's process run this script; `record` is the file that proves it finished."""

    def command(cell: Cell) -> list[str]:
        record = folders.record(cell)
        head = f"import pathlib, sys; record = pathlib.Path({str(record)!r}); name = {cell.name!r}"
        return [sys.executable, "-S", "-c", f"{head}\n{script}"]

    monkeypatch.setattr(runner, "command", command)


FINISH = "record.parent.mkdir(parents=True, exist_ok=True); record.write_text('{}')"


def test_a_failure_is_recorded_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, folders: Folders
) -> None:
    work_with(f"if name == 'hps-base-0': sys.exit('no luck')\n{FINISH}", monkeypatch, folders)
    runner.work_off([FIRST, SECOND], folders, workers=2)
    assert runner.state_of(SECOND, folders) == "done"
    assert runner.state_of(FIRST, folders) == "failed"
    assert "no luck" in runner.failure_file(FIRST, folders).read_text(encoding="utf-8")
    work_with(FINISH, monkeypatch, folders)
    runner.work_off([FIRST], folders, workers=1)
    assert runner.state_of(FIRST, folders) == "failed"
    runner.forget_failures([FIRST], folders)
    runner.work_off([FIRST], folders, workers=1)
    assert runner.state_of(FIRST, folders) == "done"


def test_a_cell_in_other_hands_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, folders: Folders
) -> None:
    work_with(f"sys.exit({runner.TAKEN})", monkeypatch, folders)
    runner.work_off([FIRST], folders, workers=1)
    assert runner.state_of(FIRST, folders) == "ready"


def test_children_end_with_the_runner(
    monkeypatch: pytest.MonkeyPatch, folders: Folders, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    script = f"import os, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
    work_with(f"{script}time.sleep(60)", monkeypatch, folders)

    def stop() -> None:
        while not pid.is_file() or not pid.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop, daemon=True).start()
    try:
        with pytest.raises(SystemExit):
            runner.work_off([FIRST], folders, workers=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not runner.failure_file(FIRST, folders).exists()


def test_a_cell_waits_for_its_calibration_and_its_learning_rate(folders: Folders) -> None:
    assert "not calibrated" in runner.state_of(Cell("hps", "drtune", 0), folders)
    folders.results.mkdir()
    folders.calibration.write_text(
        "variant,stage,kind,fastest\nshortft,1,new,1.0\ndrtune,1,new,1.0\n"
    )
    assert "no learning rate" in runner.state_of(Cell("hps", "drtune", 0), folders)
    assert runner.state_of(Cell("hps", "drtune", 100, 1e-3), folders) == "ready"


@pytest.mark.parametrize("cell", [FIRST, sweep_cells()[0]])
def test_the_command_line_reads_what_the_runner_writes(cell: Cell) -> None:
    options = parser().parse_args(runner.command(cell)[3:])
    assert Cell(options.setting, options.variant, options.seed, options.learning_rate) == cell
