"""When a progressive method changes its stage: by shares of the updates, or on a plateau."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean
from typing import Final

from shortft_core.errors import PlanError

PLATEAU_UPDATES: Final = 10
"""A stage has reached its plateau when this many updates were no better than as many before."""


def default_shares(segments: int) -> tuple[float, ...]:
    """55/20/15/10 % for the paper's four segments; each stage half of the one before for others."""
    if segments == 4:
        return (0.55, 0.20, 0.15, 0.10)
    weights = [2.0**-stage for stage in range(segments)]
    return tuple(weight / math.fsum(weights) for weight in weights)


def stage_starts(shares: Sequence[float], updates: int) -> tuple[int, ...]:
    """Updates done when each stage begins; every stage has at least one update.

    Raises PlanError if there are fewer updates than stages.
    """
    if updates < len(shares):
        raise PlanError(
            "method.updates",
            f"{updates} updates cannot be shared by {len(shares)} stages",
            f"Use at least {len(shares)} updates",
        )
    starts = [0]
    for stage, done in enumerate(list(accumulate(shares))[:-1], start=1):
        latest = updates - (len(shares) - stage)
        starts.append(min(max(round(done * updates), starts[-1] + 1), latest))
    return tuple(starts)


def has_plateaued(rewards: Sequence[float], window: int = PLATEAU_UPDATES) -> bool:
    """Whether the mean reward of the last `window` updates is no better than that before them."""
    if len(rewards) < 2 * window:
        return False
    return fmean(rewards[-window:]) <= fmean(rewards[-2 * window : -window])
