"""The charts of a report: which numbers of a run are drawn over what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Final

from shortft_core.events import StepMetrics
from shortft_core.report.chart import Border, Chart, Point, Series, draw
from shortft_core.report.log import RunLog

TARGET: Final = "target"
"""Name of the weighted sum that the job maximizes, among the judges."""
_COLORS: Final = 6
_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Clock:
    """A horizontal axis: updates, or the wall time of an update in the unit that suits the run."""

    label: str
    of: Callable[[int], float]
    borders: tuple[Border, ...]


def clocks(log: RunLog) -> tuple[Clock, Clock]:
    """The axis of updates and the axis of wall time."""
    wall = _wall_by_update(log)
    seconds, unit = _unit(max(wall.values(), default=0.0))
    known: list[tuple[str, Callable[[int], float]]] = [
        ("update", float),
        (f"wall time, {unit}", lambda update: wall[update] / seconds),
    ]
    stages = {step.update: step.stage for step in log.steps}
    # The word once, then numbers: late stages are short, and their labels would overlap.
    words = {at: "" if index else "stage " for index, at in enumerate(log.stage_borders)}
    by_updates, by_time = (
        Clock(label, of, tuple(Border(of(at), f"{word}{stages[at]}") for at, word in words.items()))
        for label, of in known
    )
    return by_updates, by_time


def reward_curve(log: RunLog) -> str:
    """Training reward, raw and smoothed, beside the held-out target of the same model."""
    updates, _ = clocks(log)
    rewards = [(float(step.update), step.reward) for step in log.steps]
    window = max(1, len(rewards) // 20)
    panel = _judge_series(TARGET, log, updates, color=1)
    series = [
        Series("training images", rewards, 0, "faint" if window > 1 else "line"),
        *([Series(f"mean of {window} updates", moving_mean(rewards, window))] * (window > 1)),
        *panel,
    ]
    return draw(
        Chart("Reward: training and held-out", updates.label, "target", series, updates.borders)
    )


def judge_curves(log: RunLog) -> str:
    """Each judge, base beside tuned, over updates and over wall time."""
    if not log.evaluations:
        return '<p class="empty">No evaluation was made.</p>'
    charts = []
    for judge in log.evaluations[-1].base:
        for clock in clocks(log):
            series = _judge_series(judge, log, clock, color=0)
            title = f"{judge} over {clock.label.partition(',')[0]}"
            charts.append(draw(Chart(title, clock.label, judge, series, clock.borders)))
    return "".join(charts)


def diversity_curve(log: RunLog) -> str:
    """How much the tuned panel's images differ from each other, beside the base model's."""
    updates, _ = clocks(log)
    measured = [(float(e.update), e.diversity) for e in log.evaluations if e.diversity is not None]
    if not measured:
        return ""
    base, last = measured[-1][1].base, measured[-1][0]
    series = [
        Series("held-out, base", [(0.0, base), (last, base)], _COLORS - 1, "dashed"),
        Series("held-out, tuned", [(0.0, base), *((at, d.tuned) for at, d in measured)]),
    ]
    return draw(Chart("Diversity", updates.label, "diversity", series, updates.borders))


def share_curve(log: RunLog) -> str:
    """Which reward term drives the tuning."""
    return _by_key(log, "Share of each reward term", "share of sum", lambda s: s.shares, floor=0.0)


def gradient_curve(log: RunLog) -> str:
    """Gradient norm of each branch before it is clipped."""
    limit = log.spec["method"].get("max_grad_norm")
    title = "Gradient norm before clipping"
    if limit is not None:
        title += f" (clipped at {limit:g})"
    return _by_key(
        log,
        title,
        "norm",
        lambda step: {f"branch {branch}": norm for branch, norm in step.grad_norms.items()},
        logarithmic=True,
    )


def statistic_curves(log: RunLog) -> str:
    """What else a method measured, each in a chart of its own: their units differ."""
    names = dict.fromkeys(name for step in log.steps for name in step.statistics)
    return "".join(
        _by_key(log, name.replace("_", " "), name, partial(_only, name=name)) for name in names
    )


def _only(step: StepMetrics, *, name: str) -> dict[str, float]:
    return {name: step.statistics[name]} if name in step.statistics else {}


def moving_mean(points: Sequence[Point], window: int) -> list[Point]:
    """Mean of the last `window` values at each point from the first full window on."""
    values = [y for _, y in points]
    return [
        (points[end - 1][0], fmean(values[end - window : end]))
        for end in range(window, len(values) + 1)
    ]


def _judge_series(judge: str, log: RunLog, clock: Clock, *, color: int) -> list[Series]:
    """The base model's mean, and the tuned means with the interval of their paired change."""
    seen = [event for event in log.evaluations if judge in event.base]
    if not seen:
        return []
    base = seen[-1].base[judge].mean
    # An untrained adapter is the base model: its second matrix is zero.
    tuned = [(clock.of(0), base)]
    bars = []
    for event in seen:
        at, mean = clock.of(event.update), event.tuned[judge].mean
        tuned.append((at, mean))
        change = log.changes(event.update).get(judge)
        if change is not None and change.half_width is not None:
            bars.append((at, mean - change.half_width, mean + change.half_width))
    level = [(clock.of(0), base), (tuned[-1][0], base)]
    return [
        Series("held-out, base", level, _COLORS - 1, "dashed"),
        Series("held-out, tuned", tuned, color, "marked", bars),
    ]


def _by_key(
    log: RunLog,
    title: str,
    y_label: str,
    values: Callable[[StepMetrics], Mapping[str, float]],
    *,
    logarithmic: bool = False,
    floor: float | None = None,
) -> str:
    """One line for each name that any update has a value of."""
    updates, _ = clocks(log)
    names = list(dict.fromkeys(name for step in log.steps for name in values(step)))
    series = [
        Series(
            name,
            [
                (float(step.update), values(step)[name])
                for step in log.steps
                if name in values(step)
            ],
            index % _COLORS,
        )
        for index, name in enumerate(names)
    ]
    return draw(
        Chart(
            title,
            updates.label,
            y_label,
            series,
            updates.borders,
            logarithmic=logarithmic,
            floor=floor,
        )
    )


def _wall_by_update(log: RunLog) -> dict[int, float]:
    """Update -> wall seconds when its evaluation was done, or else when it was made."""
    made = {step.update: log.wall_seconds[step.created_at] for step in log.steps}
    judged = {event.update: log.wall_seconds[event.created_at] for event in log.evaluations}
    return {0: 0.0, **made, **judged}


def _unit(seconds: float) -> tuple[float, str]:
    if seconds < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * _HOUR else (_HOUR, "hours")
