"""Line charts as inline SVG: axes with ticks, units, a legend, and words for who cannot see them.

Colors are classes of the page's style sheet, so that a chart follows its light or dark theme.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final, Literal

WIDTH: Final = 480
HEIGHT: Final = 250
LEFT: Final = 58
RIGHT: Final = 14
TOP: Final = 20
BOTTOM: Final = 42
MOST_POINTS: Final = 700
"""More than the pixels of a line; a longer series is thinned evenly."""

Point = tuple[float, float]
Look = Literal["line", "faint", "dashed", "marked"]


@dataclass(frozen=True, slots=True)
class Series:
    """One line; points that are not finite are left out."""

    name: str
    points: Sequence[Point]
    color: int = 0
    look: Look = "line"
    bars: Sequence[tuple[float, float, float]] = ()
    """Intervals (x, low, high) drawn as vertical bars."""


@dataclass(frozen=True, slots=True)
class Border:
    """A vertical line with a word, where something begins."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    borders: Sequence[Border] = ()
    logarithmic: bool = False
    """Whether the vertical axis counts factors; it then shows positive values only."""
    floor: float | None = None
    """A value that the vertical axis has to reach down to."""

    def shown(self, series: Series) -> list[Point]:
        """Points of a series that the axes can show."""
        return [p for p in series.points if math.isfinite(p[1]) and self._can_show(p[1])]

    def _can_show(self, value: float) -> bool:
        return value > 0 or not self.logarithmic


def draw(chart: Chart) -> str:
    """The chart as an `<svg>` element, or a sentence where there is nothing to draw."""
    lines = [(series, chart.shown(series)) for series in chart.series]
    drawn = [(series, points) for series, points in lines if points]
    if not drawn:
        return f'<p class="empty">{escape(chart.title)}: nothing was recorded.</p>'
    points = [point for _, shown in drawn for point in shown]
    to_x = _scale([x for x, _ in points], LEFT, WIDTH - RIGHT)
    y_values = [y for _, y in points] + ([] if chart.floor is None else [chart.floor])
    y_values += [end for series, _ in drawn for _, *ends in series.bars for end in ends]
    padded = _padded(y_values, logarithmic=chart.logarithmic)
    to_y = _scale(padded, HEIGHT - BOTTOM, TOP, logarithmic=chart.logarithmic)
    identity = f"chart-{zlib.crc32(f'{chart.title}/{chart.x_label}'.encode()):08x}"
    names = f"{identity}-t {identity}-d"
    parts = [
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-labelledby="{names}">',
        f'<title id="{identity}-t">{escape(chart.title)}</title>',
        f'<desc id="{identity}-d">{escape(_in_words(chart, drawn))}</desc>',
        *_axes(chart, [x for x, _ in points], padded, to_x, to_y),
        *(_border(border, to_x) for border in chart.borders),
        *(_line(series, shown, to_x, to_y) for series, shown in drawn),
        "</svg>",
    ]
    return f"<figure>{_caption(chart, [s for s, _ in drawn])}{''.join(parts)}</figure>"


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high], about `wanted` of them."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)] or [(low + high) / 2]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high]; with 2 and 5 between them where there are few."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    return [value for value in found if low <= value <= high]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Labels of equal decimals that tell neighbors apart."""
    step = min((b - a for a, b in pairwise(values)), default=0.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 7
    if decimals > 6 or max(map(abs, values)) >= 1e6:
        return [number(value) for value in values]
    return [f"{value + 0.0:.{decimals}f}" for value in values]


def number(value: float) -> str:
    """Four digits at most."""
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


def _scale(
    values: Sequence[float], start: float, end: float, *, logarithmic: bool = False
) -> Callable[[float], float]:
    """Maps the range of the values to [start, end]; a single value to the middle."""
    of = math.log10 if logarithmic else float
    low, high = of(min(values)), of(max(values))

    def place(value: float) -> float:
        share = (of(value) - low) / (high - low) if high > low else 0.5
        return start + share * (end - start)

    return place


def _padded(values: Sequence[float], *, logarithmic: bool) -> list[float]:
    """Lowest and highest value with some room around them."""
    low, high = min(values), max(values)
    if logarithmic:
        room = (high / low) ** 0.06 if high > low else 2.0
        return [low / room, high * room]
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - room, high + room]


def _axes(
    chart: Chart,
    x_values: Sequence[float],
    y_range: Sequence[float],
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    y_ticks = (log_ticks if chart.logarithmic else ticks)(min(y_range), max(y_range))
    parts = []
    y_labels = [*map(number, y_ticks)] if chart.logarithmic else tick_labels(y_ticks)
    for value, label in zip(y_ticks, y_labels, strict=True):
        y = f"{to_y(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y}" dy="4">{label}</text>')
    x_ticks = ticks(min(x_values), max(x_values))
    for value, label in zip(x_ticks, tick_labels(x_ticks), strict=True):
        x = f"{to_x(value):.1f}"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick middle" x="{x}" y="{bottom + 17}">{label}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle, side = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(
        f'<text class="label middle" x="{middle}" y="{HEIGHT - 6}">{escape(chart.x_label)}</text>'
        f'<text class="label middle" transform="translate(12 {side}) rotate(-90)">'
        f"{escape(chart.y_label)}</text>"
    )
    return parts


def _border(border: Border, to_x: Callable[[float], float]) -> str:
    x = f"{to_x(border.x):.1f}"
    return (
        f'<line class="border" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="tick end" x="{x}" dx="3" y="{TOP - 6}">{escape(border.label)}</text>'
    )


def _line(
    series: Series,
    points: Sequence[Point],
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
) -> str:
    step = math.ceil(len(points) / MOST_POINTS)
    kept = [*points[:-1:step], points[-1]]
    places = [(f"{to_x(x):.1f}", f"{to_y(y):.1f}") for x, y in kept]
    path = " ".join(f"{x},{y}" for x, y in places)
    parts = [f'<polyline class="c{series.color} {series.look}" points="{path}"/>']
    if series.look == "marked" or len(kept) == 1:
        parts += [
            f'<circle class="c{series.color}" cx="{cx}" cy="{cy}" r="3.5">'
            f"<title>{escape(series.name)}: {number(y)} at {number(x)}</title></circle>"
            for (cx, cy), (x, y) in zip(places, kept, strict=True)
        ]
    parts += [
        f'<line class="c{series.color} bar" x1="{to_x(x):.1f}" x2="{to_x(x):.1f}"'
        f' y1="{to_y(low):.1f}" y2="{to_y(high):.1f}"/>'
        for x, low, high in series.bars
    ]
    return "".join(parts)


def _caption(chart: Chart, drawn: Sequence[Series]) -> str:
    """Title and legend, as text of the page: it wraps where the page is narrow."""
    entries = "".join(
        f'<span><svg class="key" viewBox="0 0 24 8" aria-hidden="true">'
        f'<line class="c{series.color} {series.look}" x1="0" x2="24" y1="4" y2="4"/></svg>'
        f"{escape(series.name)}</span>"
        for series in drawn
    )
    return (
        f'<figcaption><b>{escape(chart.title)}</b><span class="legend">{entries}</span>'
        "</figcaption>"
    )


def _in_words(chart: Chart, drawn: Sequence[tuple[Series, Sequence[Point]]]) -> str:
    """First, last, lowest and highest value of each line."""
    sentences = [f"{chart.y_label} over {chart.x_label}."]
    for series, points in drawn:
        values = [y for _, y in points]
        sentences.append(
            f"{series.name}: from {number(values[0])} to {number(values[-1])},"
            f" lowest {number(min(values))}, highest {number(max(values))}."
        )
    return " ".join(sentences)
