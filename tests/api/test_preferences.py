from __future__ import annotations

import asyncio

import pytest

from api.preferences import Preference, negotiate, preference
from api.problems import ProblemError

OFFERS = ("application/json", "image/png", "image/webp")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Preference()),
        ("", Preference()),
        ("wait=30", Preference(30, "wait=30")),
        ('Wait = "5"', Preference(5, "wait=5")),
        ("wait=600", Preference(60, "wait=60")),
        ("respond-async", Preference(0, "respond-async")),
        ("respond-async, wait=10", Preference(10, "wait=10")),
        ("wait=-1", Preference()),
        ("wait=1e9, return=minimal", Preference()),
        ("wait=٣", Preference()),
    ],
)
def test_prefer(header: str | None, expected: Preference) -> None:
    assert asyncio.run(preference(header)) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("image/png;q=0.1, image/webp", "image/webp"),
        ("text/html, application/json;q=0.5, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "image/png"),
        ("image/*, image/png;q=0", "image/webp"),
    ],
)
def test_the_liked_offer_is_taken(accept: str | None, expected: str) -> None:
    assert negotiate(accept, OFFERS) == expected


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/png;q=2", "image/png;q=x"])
def test_nothing_liked_is_refused(accept: str) -> None:
    with pytest.raises(ProblemError, match="application/json, image/png, image/webp"):
        negotiate(accept, OFFERS)
