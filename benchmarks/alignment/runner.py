"""Works off missing cells in processes of their own; it may be killed at any time."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks.alignment.availability import obstacle
from benchmarks.alignment.cells import Cell, Folders
from benchmarks.results import write_json

log = logging.getLogger("benchmarks")

POLL_SECONDS: Final = 1.0
TAKEN: Final = 3
"""Exit status of a process that found its cell in the hands of another runner."""
LOG_TAIL_CHARACTERS: Final = 4000


def failure_file(cell: Cell, folders: Folders) -> Path:
    """Why a cell failed; it is not tried again until this file is gone."""
    return folders.run(cell) / "failure.json"


def state_of(cell: Cell, folders: Folders) -> str:
    """`done`, `failed`, `ready`, or what it waits for."""
    if folders.record(cell).is_file():
        return "done"
    if failure_file(cell, folders).is_file():
        return "failed"
    return obstacle(cell, folders) or "ready"


def command(cell: Cell) -> list[str]:
    """The process that works on one cell."""
    rate = [] if cell.learning_rate is None else ["--learning-rate", repr(cell.learning_rate)]
    module = [sys.executable, "-m", "benchmarks.alignment", "cell"]
    return [*module, cell.setting, cell.variant, str(cell.seed), *rate]


def work_off(cells: Sequence[Cell], folders: Folders, *, workers: int) -> None:
    """Runs every cell that is ready, `workers` at a time; failures are recorded and passed over."""
    _say_what_waits(cells, folders)
    waiting = iter(cells)
    running: dict[subprocess.Popen[bytes], Cell] = {}
    signal.signal(signal.SIGTERM, _leave)
    try:
        while True:
            while len(running) < workers and (cell := _next_ready(waiting, folders)):
                running[_start(cell, folders)] = cell
            if not running:
                return
            time.sleep(POLL_SECONDS)
            for process in [process for process in running if process.poll() is not None]:
                _settle(process.wait(), running.pop(process), folders)
    finally:
        for process in running:
            process.terminate()
            process.wait()


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the form of a handler
    """Turns SIGTERM into the way out that also ends the children."""
    sys.exit(128 + number)


def _next_ready(waiting: Iterator[Cell], folders: Folders) -> Cell | None:
    return next((cell for cell in waiting if state_of(cell, folders) == "ready"), None)


def _say_what_waits(cells: Sequence[Cell], folders: Folders) -> None:
    for cell in cells:
        state = state_of(cell, folders)
        if state not in {"done", "ready"}:
            log.info("%s is skipped: %s", cell.name, state)


def _start(cell: Cell, folders: Folders) -> subprocess.Popen[bytes]:
    path = folders.run(cell) / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    log.info("%s begins", cell.name)
    with path.open("ab") as file:
        return subprocess.Popen(command(cell), stdout=file, stderr=file)  # noqa: S603 - our own command


def _settle(status: int, cell: Cell, folders: Folders) -> None:
    """Says how the cell ended, and keeps the end of its log where it failed."""
    if status == TAKEN:
        log.info("%s is in other hands", cell.name)
    elif status == 0 and folders.record(cell).is_file():
        log.info("%s is done", cell.name)
    else:
        text = (folders.run(cell) / "log.txt").read_text(encoding="utf-8", errors="replace")
        content = {"status": status, "log": text[-LOG_TAIL_CHARACTERS:]}
        write_json(failure_file(cell, folders), content)
        log.error("%s failed with status %d: %s", cell.name, status, json.dumps(text[-300:]))


def forget_failures(cells: Sequence[Cell], folders: Folders) -> None:
    """Lets failed cells be tried again."""
    for cell in cells:
        failure_file(cell, folders).unlink(missing_ok=True)
