"""The tables of the comparison, made from whatever cells are finished."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

from benchmarks.alignment import curves, records
from benchmarks.alignment.budget import CALIBRATED, Calibration
from benchmarks.alignment.cells import (
    BUDGET_VARIANT,
    SETTINGS,
    UNTUNED,
    VARIANTS,
    Cell,
    Folders,
    table_cells,
)
from benchmarks.alignment.pictures import sheet_path
from benchmarks.alignment.records import Record
from benchmarks.results import (
    DOCUMENT,
    NOT_MEASURED,
    described,
    markdown_table,
    picture,
    read_csv,
    read_json,
    write_csv,
)
from shortft_core.paired import student_quantile

TARGET: Final = "target"
DIVERSITY: Final = "diversity"
COLUMNS: Final[Mapping[str, tuple[str, float]]] = {
    TARGET: ("target", 1.0),
    "hps_v2": ("HPS", 100.0),
    "pickscore": ("Pick", 100.0),
    "aesthetic": ("aesthetic", 1.0),
    "symmetry": ("symmetry", 1.0),
    "compressibility": ("compress.", 1.0),
    "oracle": ("oracle %", 100.0),
    DIVERSITY: ("diversity", 1.0),
}
"""Judge -> its heading, and the factor from raw units: cosines are shown times 100."""
_DECIMALS: Final = {100.0: 2, 1.0: 4}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean over seeds and half of its 95 % interval by Student's t."""

    mean: float
    half_width: float | None
    """None for a single seed."""
    n: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of one number per seed; raises StatisticsError for none."""
    if len(values) < 2:
        return Estimate(fmean(values), None, len(values))
    width = student_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Estimate(fmean(values), width, len(values))


def measured(record: Record, judge: str) -> float:
    """What one finished run says of one column."""
    if judge == DIVERSITY:
        return record.diversity or 0.0
    return record.mean(judge)


@dataclass(frozen=True, slots=True)
class Row:
    """One variant in one setting."""

    setting: str
    variant: str
    runs: tuple[Record, ...]
    """The runs that are finished, one per seed."""

    @property
    def judged(self) -> tuple[Record, ...]:
        """Those that have pictures to judge: a run that diverged has none."""
        return tuple(run for run in self.runs if run.scores)

    @property
    def alarms(self) -> int:
        """Runs that the guard raised an alarm in, or that diverged."""
        return sum(bool(run.alerts) or run.outcome == "diverged" for run in self.runs)

    def cells(self) -> list[str]:
        """The row of a document."""
        updates = str(self.runs[0].updates) if self.runs and self.runs[0].updates else "-"
        shown = [self._shown(judge, factor) for judge, (_, factor) in COLUMNS.items()]
        return [f"`{self.variant}`", str(len(self.runs)), updates, *shown, str(self.alarms)]

    def _shown(self, judge: str, factor: float) -> str:
        if not self.judged:
            return "-"
        found = estimate([factor * measured(run, judge) for run in self.judged])
        text = f"{found.mean:.{_DECIMALS[factor]}f}"
        if found.half_width is None:
            return text
        return f"{text} ± {found.half_width:.{_DECIMALS[factor]}f}"

    def csv_rows(self) -> list[dict[str, object]]:
        """One row per judge, in raw units."""
        rows: list[dict[str, object]] = []
        for judge in COLUMNS if self.judged else ():
            found = estimate([measured(run, judge) for run in self.judged])
            width = "" if found.half_width is None else round(found.half_width, 6)
            rows.append(
                {
                    "setting": self.setting,
                    "variant": self.variant,
                    "updates": self.runs[0].updates,
                    "judge": judge,
                    "n": found.n,
                    "mean": round(found.mean, 6),
                    "half_width_95": width,
                    "alarms": self.alarms,
                }
            )
        return rows


def collect(folders: Folders, cells: Sequence[Cell] | None = None) -> list[Row]:
    """A row for every setting and variant, with whatever is finished."""
    wanted = table_cells() if cells is None else cells
    rows = []
    for setting in SETTINGS:
        for variant in (*UNTUNED, *VARIANTS):
            chosen = [c for c in wanted if (c.setting, c.variant) == (setting, variant)]
            found = [records.read(folders.record(cell)) for cell in chosen]
            rows.append(Row(setting, variant, tuple(run for run in found if run is not None)))
    return rows


def write_tables(folders: Folders) -> None:
    """The table of everything that is finished, and a curve per setting."""
    rows = collect(folders)
    finished = [line for row in rows for line in row.csv_rows()]
    if finished:
        write_csv(folders.results / "tables.csv", finished)
    for setting in SETTINGS:
        here = {row.variant: row.runs for row in rows if row.setting == setting}
        curves.draw(setting, here, folders)


def sections(folders: Folders, document: Path = DOCUMENT) -> dict[str, str]:
    """What the document says of the cells that are finished, by section."""
    rows = collect(folders)
    by_setting = {
        f"alignment {setting}": _section(
            setting, [row for row in rows if row.setting == setting], folders, document
        )
        for setting in SETTINGS
    }
    return {
        **by_setting,
        "alignment calibration": _calibration(folders),
        "alignment sweep": _sweep(folders),
    }


def _section(setting: str, rows: Sequence[Row], folders: Folders, document: Path) -> str:
    head = ["variant", "n", "updates", *(title for title, _ in COLUMNS.values()), "alarms"]
    body = [row.cells() for row in rows]
    reached = curves.reaching_table({row.variant: row.runs for row in rows})
    pictures = [
        picture(
            curves.curve_path(setting, folders), f"Reward over time, {setting}", document=document
        ),
        picture(sheet_path(setting, folders), f"All variants, {setting}", document=document),
    ]
    parts = [markdown_table(head, body), reached, *pictures]
    return "\n\n".join(part for part in parts if part)


def _calibration(folders: Folders) -> str:
    names = ("variant", "stage", "kind", "updates", "seconds", "fastest", "slowest")
    rows = [
        [*(row[name] for name in names), row["units_per_image"], row.get(CALIBRATED) or "-"]
        for row in read_csv(folders.calibration)
    ]
    if not rows:
        return NOT_MEASURED
    calibration = Calibration.read(folders.calibration)
    head = [
        "variant",
        "stage",
        "images",
        "timed",
        "s per update",
        "fastest",
        "slowest",
        "units",
        "calibrated",
    ]
    facts = read_json(folders.calibration.with_suffix(".json"))
    parts = [f"{described(facts)} One thread.", markdown_table(head, rows)]
    if calibration.knows(BUDGET_VARIANT):
        parts.append(f"The budget is {calibration.budget_seconds():.1f} s of training.")
    return "\n\n".join(parts)


def _sweep(folders: Folders) -> str:
    names = ("variant", "learning_rate", "updates", "target", "alerts", "chosen")
    rows = [[row[name] for name in names] for row in read_csv(folders.sweep)]
    return markdown_table(names, rows) if rows else NOT_MEASURED
