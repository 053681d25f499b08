"""What changed between two sets of images of the same prompts and seeds, and how surely."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Change:
    """Mean paired difference of one judge, in its raw units."""

    mean: float
    half_width: float | None
    """Half of the 95 % interval of the mean; None where one pair tells nothing about it."""
    improved: int
    """Pairs with a higher score than before."""
    pairs: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean."""
        if self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width


def change(prompts: Sequence[str], before: Sequence[float], after: Sequence[float]) -> Change:
    """Student's paired interval (Gosset 1908) with prompts as its independent units.

    Images of one prompt resemble each other, so their differences are averaged first; with a
    single prompt the seeds are the units. Raises ValueError for none or unequal lengths.
    """
    differences = [new - old for old, new in zip(before, after, strict=True)]
    by_prompt: dict[str, list[float]] = {}
    for prompt, difference in zip(prompts, differences, strict=True):
        by_prompt.setdefault(prompt, []).append(difference)
    if not differences:
        raise ValueError("there is no pair to compare")
    units = differences if len(by_prompt) == 1 else [*map(statistics.fmean, by_prompt.values())]
    return Change(
        mean=statistics.fmean(units),
        half_width=_half_width(units),
        improved=sum(difference > 0 for difference in differences),
        pairs=len(differences),
    )


def changes(
    prompts: Sequence[str],
    before: Iterable[Mapping[str, float]],
    after: Iterable[Mapping[str, float]],
) -> dict[str, Change]:
    """Judge -> change, for every judge of each pair."""
    old, new = list(before), list(after)
    judges = old[0] if old else {}
    return {
        judge: change(prompts, [row[judge] for row in old], [row[judge] for row in new])
        for judge in judges
    }


def _half_width(units: Sequence[float]) -> float | None:
    if len(units) < 2 or not all(map(math.isfinite, units)):
        return None
    return student_quantile(len(units) - 1) * statistics.stdev(units) / math.sqrt(len(units))


def student_quantile(freedom: int, confidence: float = _CONFIDENCE) -> float:
    """The t with P(|T| < t) = confidence, by bisection of the exact distribution."""
    low, high = 0.0, 1.0
    while _student(high, freedom) < confidence:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student(middle, freedom) < confidence else (low, middle)
    return high


def _student(t: float, freedom: int) -> float:
    """P(|T| < t) for whole degrees of freedom: Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    squared = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for index in range(1 + odd, freedom, 2):
        total += term
        term *= squared * index / (index + 1)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
