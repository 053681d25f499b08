"""Readings against captions, with every mark worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from shortft_core.oracle.reading import (
    Comparison,
    Reading,
    SeenShape,
    compare,
    relation_between,
    total,
)
from shortft_core.oracle.scene import Scene, parse

CAPTION = "a large red circle left of a small blue star on a white background"


def seen(kind: str, color: str, size: str, x: float, y: float) -> SeenShape:
    return SeenShape(kind, color, size, x, y, confidence=0.9)


def scene(caption: str) -> Scene:
    found = parse(caption)
    assert found is not None
    return found


RED = seen("circle", "red", "large", 20, 32)
BLUE = seen("star", "blue", "small", 45, 30)


@pytest.mark.parametrize("order", [(RED, BLUE), (BLUE, RED)])
def test_everything_right_is_one_whichever_shape_is_surest(order: tuple[SeenShape, ...]) -> None:
    found = compare(Reading(order, "white"), scene(CAPTION))
    assert found.share == 1.0
    assert found.asked == Counter(shape=2, color=2, size=2, relation=1, background=1)


def test_each_wrong_attribute_costs_one_eighth() -> None:
    wrong = seen("ring", "blue", "medium", 45, 30)
    found = compare(Reading((RED, wrong), "gray"), scene(CAPTION))
    assert found.share == 5 / 8
    assert found.shown == Counter(shape=1, color=2, size=1, relation=1, background=0)


def test_a_missing_shape_shows_nothing_and_no_relation() -> None:
    found = compare(Reading((RED,), "white"), scene(CAPTION))
    assert found.shown == Counter(shape=1, color=1, size=1, background=1)
    assert found.share == 4 / 8


def test_an_empty_picture_shows_only_its_background() -> None:
    assert compare(Reading((), "white"), scene(CAPTION)).share == 1 / 8


def test_exchanged_places_are_a_wrong_relation_only() -> None:
    places = seen("circle", "red", "large", 45, 30), seen("star", "blue", "small", 20, 32)
    found = compare(Reading(places, "white"), scene(CAPTION))
    assert found.share == 7 / 8
    assert found.rate("relation") == 0.0


def test_a_relation_between_other_things_does_not_count() -> None:
    other = seen("heart", "pink", "large", 20, 32), BLUE
    assert compare(Reading(other, "white"), scene(CAPTION)).rate("relation") == 0.0


def test_what_the_caption_leaves_open_is_not_judged() -> None:
    found = compare(Reading((RED, BLUE), "white"), scene("a red circle"))
    assert found == Comparison(Counter(shape=1, color=1), Counter(shape=1, color=1))
    assert found.rate("size") is None
    assert found.rate("background") is None


def test_a_single_shape_is_the_surest_one() -> None:
    assert compare(Reading((BLUE, RED), "white"), scene("a red circle")).share == 0.0


def test_total_adds_up() -> None:
    good = compare(Reading((RED,), "white"), scene("a red circle"))
    bad = compare(Reading((BLUE,), "white"), scene("a red circle"))
    assert total([good, good, good, bad]).share == 0.75
    assert total([good, bad]).rate("color") == 0.5


@pytest.mark.parametrize(
    ("x", "y", "relation"),
    [(50, 36, "left of"), (10, 28, "right of"), (36, 60, "above"), (28, 5, "below")],
)
def test_the_longer_distance_names_the_relation(x: float, y: float, relation: str) -> None:
    first = seen("circle", "red", "small", 32, 32)
    assert relation_between(first, seen("star", "blue", "small", x, y)) == relation
