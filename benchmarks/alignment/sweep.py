"""One learning rate per variant, chosen on prompts and a seed that the tables never use."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.alignment import records
from benchmarks.alignment.cells import VARIANTS, Folders, sweep_cells
from benchmarks.alignment.records import Record
from benchmarks.results import read_csv, write_csv

TARGET = "target"


def choose(tried: Sequence[Record]) -> Record | None:
    """The highest held-out target among runs without an alarm; among all where each raised one."""
    whole = [record for record in tried if record.scores]
    candidates = [record for record in whole if not record.alerts] or whole
    return max(candidates, key=lambda record: record.mean(TARGET), default=None)


def write_choices(folders: Folders) -> None:
    """The table of everything tried; a variant is chosen for once all of its runs are there."""
    rows: list[dict[str, object]] = []
    for variant in VARIANTS:
        cells = [cell for cell in sweep_cells() if cell.variant == variant]
        found = [records.read(folders.record(cell)) for cell in cells]
        tried = [record for record in found if record is not None]
        chosen = choose(tried) if len(tried) == len(cells) else None
        rows += [_row(record, is_chosen=record is chosen) for record in tried]
    if rows:
        write_csv(folders.sweep, rows)


def chosen_rate(variant: str, folders: Folders) -> float | None:
    """The learning rate of the variant's cells; None before its sweep is complete."""
    for row in read_csv(folders.sweep):
        if row["variant"] == variant and row["chosen"] == "yes":
            return float(row["learning_rate"])
    return None


def _row(record: Record, *, is_chosen: bool) -> dict[str, object]:
    return {
        "variant": record.variant,
        "learning_rate": record.learning_rate,
        "updates": record.updates,
        "target": round(record.mean(TARGET), 6) if record.scores else "",
        "alerts": " ".join(record.alerts),
        "outcome": record.outcome,
        "chosen": "yes" if is_chosen else "",
    }
