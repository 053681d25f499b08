"""Reward over calibrated seconds, and when each variant reached what DRTune ended with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from benchmarks.alignment.cells import Folders
from benchmarks.alignment.records import Record
from benchmarks.plotting import new_figure, save_figure
from benchmarks.results import markdown_table

TARGET: Final = "target"
REFERENCE: Final = "drtune"

Runs = Mapping[str, Sequence[Record]]
"""Variant -> its finished runs."""


def curve(run: Record) -> list[tuple[float, float]]:
    """(calibrated seconds, gain of the target over the untuned model on the same images)."""
    points = [(point.seconds, point.tuned[TARGET] - point.base[TARGET]) for point in run.curve]
    return [(0.0, 0.0), *points]


def seconds_to_reach(run: Record, gain: float) -> float | None:
    """Calibrated seconds at which the straight lines between evaluations first reach the gain."""
    points = curve(run)
    for (start, low), (end, high) in itertools.pairwise(points):
        if high >= gain:
            return start if low >= gain else start + (end - start) * (gain - low) / (high - low)
    return None


def reaching_table(runs: Runs) -> str:
    """Seconds until the gain that DRTune ended with under the same seed; empty without one.

    Where it ended below the base model there is nothing to reach.
    """
    ends = {run.seed: curve(run)[-1][1] for run in runs.get(REFERENCE, ())}
    final = {seed: gain for seed, gain in ends.items() if gain > 0}
    if not final:
        return ""
    rows = []
    for variant, found in runs.items():
        pairs = [(run, final[run.seed]) for run in found if run.curve and run.seed in final]
        if not pairs:
            continue
        times = [seconds_to_reach(run, gain) for run, gain in pairs]
        reached = [time for time in times if time is not None]
        mean = f"{fmean(reached):.1f}" if reached else "never"
        rows.append([f"`{variant}`", f"{len(reached)} of {len(times)}", mean])
    head = ["variant", "runs that reach DRTune's final gain, if any", "mean seconds of those"]
    return markdown_table(head, rows)


def curve_path(setting: str, folders: Folders) -> Path:
    """The committed picture of a setting."""
    return folders.results / f"curve_{setting}.png"


def draw(setting: str, runs: Runs, folders: Folders) -> None:
    """Every run as a thin line with its evaluations; nothing where no run is finished."""
    if not any(run.curve for found in runs.values() for run in found):
        return
    figure, axes = new_figure()
    for number, (variant, found) in enumerate(runs.items()):
        for index, run in enumerate(run for run in found if run.curve):
            seconds, gains = zip(*curve(run), strict=True)
            label = variant if index == 0 else None
            axes.plot(seconds, gains, marker="o", markersize=3, color=f"C{number}", label=label)
    axes.set_xlabel("training time on one core in s (calibrated)")
    axes.set_ylabel("gain of the target on held-out prompts, raw units")
    axes.set_title(setting)
    axes.legend(fontsize=8)
    save_figure(figure, curve_path(setting, folders))
