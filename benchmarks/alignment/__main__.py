"""Command line: calibrate, sweep, run, tables, sheet, status."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.alignment import runner
from benchmarks.alignment.availability import missing_weights
from benchmarks.alignment.cells import VARIANTS, Cell, Folders, sweep_cells, table_cells

log = logging.getLogger("benchmarks")


def _calibrate(options: argparse.Namespace) -> None:
    """Measure seconds per update, on a machine that does nothing else."""
    from benchmarks.alignment.calibrate import calibrate

    wanted = options.only or VARIANTS
    able = [variant for variant in wanted if missing_weights(variant) is None]
    for variant in wanted:
        if variant not in able:
            log.info("%s is skipped: %s", variant, missing_weights(variant))
    calibrate(able, Folders())


def _measure(options: argparse.Namespace) -> None:
    """Time the updates of one variant; `calibrate` calls it."""
    from benchmarks.alignment.calibrate import measure

    measure(options.variant, options.number)


def _cell(options: argparse.Namespace) -> None:
    """Work on one cell; `run` and `sweep` call it."""
    from benchmarks.alignment.work import claimed, run_cell

    cell = Cell(options.setting, options.variant, options.seed, options.learning_rate)
    with claimed(cell, Folders()) as ours:
        if not ours:
            sys.exit(runner.TAKEN)
        run_cell(cell, Folders())


def _run(options: argparse.Namespace) -> None:
    """Work off the missing cells of the tables."""
    cells = table_cells()
    if options.retry_failed:
        runner.forget_failures(cells, Folders())
    runner.work_off(cells, Folders(), workers=options.workers)
    _tables(options)


def _sweep(options: argparse.Namespace) -> None:
    """Work off the learning-rate sweep and choose."""
    from benchmarks.alignment.sweep import write_choices

    cells = sweep_cells()
    if options.retry_failed:
        runner.forget_failures(cells, Folders())
    runner.work_off(cells, Folders(), workers=options.workers)
    write_choices(Folders())


def _tables(options: argparse.Namespace) -> None:  # noqa: ARG001 - has no options
    """Write tables, curves and the document's sections from what is finished."""
    from benchmarks.alignment.tables import write_tables
    from benchmarks.document import write_document

    write_tables(Folders())
    write_document()


def _sheet(options: argparse.Namespace) -> None:  # noqa: ARG001 - has no options
    """Draw all variants on the same prompts and seeds."""
    from benchmarks.alignment.pictures import write_sheets

    for path in write_sheets(Folders()):
        log.info("%s", path)


def _status(options: argparse.Namespace) -> None:  # noqa: ARG001 - has no options
    """Say what is done, ready, failed, or what it waits for."""
    for cell in [*sweep_cells(), *table_cells()]:
        sys.stdout.write(f"{cell.name:45s} {runner.state_of(cell, Folders())}\n")


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], None]]] = {
    "calibrate": _calibrate,
    "measure": _measure,
    "cell": _cell,
    "run": _run,
    "sweep": _sweep,
    "tables": _tables,
    "sheet": _sheet,
    "status": _status,
}


def parser() -> argparse.ArgumentParser:
    """Every command and its options."""
    whole = argparse.ArgumentParser(prog="python -m benchmarks.alignment", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    parts = {
        name: commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        for name, function in COMMANDS.items()
    }
    for name in ("run", "sweep"):
        parts[name].add_argument("--workers", type=int, default=1, help="cells at a time")
        parts[name].add_argument("--retry-failed", action="store_true", help="try them again")
    parts["calibrate"].add_argument("--only", choices=VARIANTS, action="append")
    parts["measure"].add_argument("variant", choices=VARIANTS)
    parts["measure"].add_argument("number", type=int)
    for field in ("setting", "variant"):
        parts["cell"].add_argument(field)
    parts["cell"].add_argument("seed", type=int)
    parts["cell"].add_argument("--learning-rate", type=float)
    return whole


def main() -> None:
    """Runs the command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = parser().parse_args()
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
