"""Charts put every value where its axis says it is, and say the same in words."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortft_core.report.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Border,
    Chart,
    Series,
    draw,
    log_ticks,
    number,
    tick_labels,
    ticks,
)

positive = st.floats(1e-6, 1e6)


def lines_of(markup: str) -> list[list[tuple[float, float]]]:
    """Points of each line in the picture's own coordinates."""
    drawn = re.findall(r'<polyline[^>]*points="([^"]*)"', markup)
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in d.split())] for d in drawn]


def chart(*series: Series, logarithmic: bool = False) -> Chart:
    return Chart("A title", "update", "reward", series, logarithmic=logarithmic)


def test_a_line_goes_through_the_corners_its_axes_name() -> None:
    markup = draw(chart(Series("s", [(0, 0.0), (5, 1.0), (10, 0.0)])))
    (line,) = lines_of(markup)
    assert [x for x, _ in line] == [LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT]
    # 6 % of room above and below: a value of 0 lies 0.06 / 1.12 of the height over the axis.
    room = 0.06 / 1.12 * (HEIGHT - BOTTOM - TOP)
    assert line[0][1] == pytest.approx(HEIGHT - BOTTOM - room, abs=0.06)
    assert line[1][1] == pytest.approx(TOP + room, abs=0.06)


def test_equal_factors_are_equal_lengths_on_a_logarithmic_axis() -> None:
    markup = draw(chart(Series("s", [(0, 0.01), (1, 0.1), (2, 1.0), (3, 0.0)]), logarithmic=True))
    (line,) = lines_of(markup)
    assert len(line) == 3  # zero has no logarithm
    heights = [y for _, y in line]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_numbers_that_are_not_finite_are_left_out() -> None:
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)]
    (line,) = lines_of(draw(chart(Series("s", points))))
    assert len(line) == 2


def test_nothing_to_draw_is_said() -> None:
    assert draw(chart(Series("s", []))) == '<p class="empty">A title: nothing was recorded.</p>'


def test_a_single_point_is_seen() -> None:
    markup = draw(chart(Series("s", [(3, 0.5)])))
    assert "<circle" in markup
    assert "s: 0.5 at 3" in markup


def test_bars_and_borders_stay_inside() -> None:
    series = Series("s", [(0, 0.0), (10, 1.0)], look="marked", bars=[(10, -4.0, 6.0)])
    markup = draw(Chart("A title", "update", "reward", [series], [Border(5, "stage 2")]))
    bar = re.search(r'class="c0 bar"[^>]*y1="([\d.]+)" y2="([\d.]+)"', markup)
    assert bar is not None
    assert TOP < float(bar[2]) < float(bar[1]) < HEIGHT - BOTTOM
    assert f'<line class="border" x1="{(LEFT + WIDTH - RIGHT) / 2:.1f}"' in markup
    assert "stage 2" in markup


def test_a_long_series_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(x), float(x % 7)) for x in range(100_000)]
    (line,) = lines_of(draw(chart(Series("s", points))))
    assert len(line) < 710
    assert (line[0][0], line[-1][0]) == (LEFT, WIDTH - RIGHT)


def test_the_picture_is_xml_with_a_title_and_words() -> None:
    markup = draw(chart(Series("a <b> & c", [(0, 0.25), (1, 0.75)], look="marked")))
    figure = ET.fromstring(markup)  # noqa: S314 - our own markup
    picture = next(node for node in figure.iter("svg") if node.get("role") == "img")
    title, words = picture.find("title"), picture.find("desc")
    assert title is not None
    assert words is not None
    assert picture.get("aria-labelledby") == f"{title.get('id')} {words.get('id')}"
    assert words.text == (
        "reward over update. a <b> & c: from 0.25 to 0.75, lowest 0.25, highest 0.75."
    )


def test_the_same_chart_is_the_same_text() -> None:
    same = chart(Series("s", [(0, 0.25), (1, 0.75)]))
    assert draw(same) == draw(same)


@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e4), st.integers(3, 8))
def test_ticks_are_even_within_and_told_apart(low: float, span: float, wanted: int) -> None:
    found = ticks(low, low + span, wanted)
    slack = 1e-6 * span
    assert all(low - slack <= value <= low + span + slack for value in found)
    assert wanted / 2.5 - 1 <= len(found) <= wanted + 1
    gaps = [(b - a) / span for a, b in pairwise(found)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps) if gaps else [], rel=1e-6)
    labels = tick_labels(found)
    assert len(set(labels)) == len(labels)
    assert [float(label) for label in labels] == pytest.approx(found, abs=1e-6 * span)


@given(positive, st.floats(1.01, 1e9))
def test_logarithmic_ticks_are_within(low: float, factor: float) -> None:
    found = log_ticks(low, low * factor)
    assert all(low <= value <= low * factor for value in found)
    assert found == sorted(found)
    assert found or factor < 2.51


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.25, "0.25"), (1200.0, "1200"), (1e-5, "1.0e-05"), (-0.5, "-0.5")],
)
def test_labels_are_short(value: float, text: str) -> None:
    assert number(value) == text
