"""Equal compute: how many updates of a variant fit the seconds that ShortFT's need."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Final, Literal

from benchmarks.alignment.cells import BUDGET_UPDATES, BUDGET_VARIANT, VARIANTS, Cell
from benchmarks.results import read_csv
from shortft_core.spec import AnyMethod, ShortFT
from shortft_core.stages import default_shares, stage_starts

Kind = Literal["new", "reused"]
"""Whether the images of an update were sampled from noise, or continued from the prefix pool."""
CALIBRATED: Final = "calibrated_seconds"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one kind of update of a variant in one stage."""

    variant: str
    stage: int
    kind: Kind
    seconds: tuple[float, ...]
    """Every update that was timed."""
    units: tuple[float, ...]
    """Forwards per image of each of them by the cost model."""
    expected_units: float
    """The mean of what a method may draw by chance."""

    @property
    def calibrated_seconds(self) -> float:
        """Seconds of a mean update: the fastest per unit, for other work only slows one."""
        each = zip(self.seconds, self.units, strict=True)
        return min(seconds / units for seconds, units in each) * self.expected_units

    def row(self, **facts: object) -> dict[str, object]:
        """The row of the calibration table."""
        return {
            "variant": self.variant,
            "stage": self.stage,
            "kind": self.kind,
            "updates": len(self.seconds),
            "seconds": round(median(self.seconds), 4),
            "fastest": round(min(self.seconds), 4),
            "slowest": round(max(self.seconds), 4),
            "units_per_image": round(fmean(self.units), 2),
            **facts,
            CALIBRATED: round(self.calibrated_seconds, 4),
        }


class Calibration:
    """Seconds of a mean update by variant, stage and kind."""

    def __init__(self, seconds: Mapping[tuple[str, int, Kind], float]) -> None:
        self._seconds = dict(seconds)

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """The calibration table; empty where nothing was measured yet."""
        kinds: dict[str, Kind] = {"new": "new", "reused": "reused"}
        return cls(
            {
                (row["variant"], int(row["stage"]), kinds[row["kind"]]): float(
                    row.get(CALIBRATED) or row["fastest"]
                )
                for row in read_csv(path)
            }
        )

    def knows(self, variant: str) -> bool:
        """Whether the variant and the one that sets the budget were measured."""
        known = {name for name, _, _ in self._seconds}
        return {variant, BUDGET_VARIANT} <= known

    def seconds_after(self, variant: str, update: int, updates: int) -> float:
        """Training seconds that a run of `updates` has spent after `update` of them."""
        return math.fsum(self._kinds(variant, updates)[:update])

    def budget_seconds(self, share: float = 1.0) -> float:
        """What ShortFT's updates cost."""
        return share * self.seconds_after(BUDGET_VARIANT, BUDGET_UPDATES, BUDGET_UPDATES)

    def updates_for(self, cell: Cell) -> int:
        """The most updates of the cell's variant that fit its share of the budget."""
        budget = self.budget_seconds(cell.budget_share)
        updates = len(shares_of(VARIANTS[cell.variant]))
        while self.seconds_after(cell.variant, updates + 1, updates + 1) <= budget:
            updates += 1
        return updates

    def _kinds(self, variant: str, updates: int) -> list[float]:
        """Seconds of every update of a run."""
        method = VARIANTS[variant]
        pool = method.prefix_pool if isinstance(method, ShortFT) else 0
        filling = pool // method.batch_size if pool else updates
        seconds: list[float] = []
        starts = [*stage_starts(shares_of(method), updates), updates]
        for stage, (first, end) in enumerate(itertools.pairwise(starts), start=1):
            # Stage 1 changes the segment that all images begin with: it has no prefix to keep.
            new = end - first if stage == 1 else min(end - first, filling)
            seconds += [self._seconds[variant, stage, "new"]] * new
            if end - first > new:
                seconds += [self._seconds[variant, stage, "reused"]] * (end - first - new)
        return seconds


def shares_of(method: AnyMethod) -> Sequence[float]:
    """Share of the updates that each stage of a method gets."""
    if not isinstance(method, ShortFT) or method.ablation == "no_progressive":
        return (1.0,)
    return method.stage_shares or default_shares(method.segments)
