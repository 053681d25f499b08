"""What a caller prefers: to wait for the result (RFC 7240), and a representation (RFC 9110)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header

from api.problems import ProblemError

LONGEST_WAIT_SECONDS: Final = 60
_WAIT: Final = re.compile(r"wait\s*=\s*\"?(\d{1,6})\"?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Preference:
    """How long an answer may take."""

    wait_seconds: int = 0
    """0 for an answer at once."""
    applied: str | None = None
    """Value of `Preference-Applied`."""

    @property
    def headers(self) -> dict[str, str]:
        """Says which preference was honoured, if one was."""
        return {"Preference-Applied": self.applied} if self.applied else {}


async def preference(
    prefer: Annotated[
        str | None,
        Header(
            max_length=200,
            description="`wait=30` answers when the work is done, or after that many seconds (at "
            "most 60) with 202; `respond-async` answers at once, which is the default.",
            examples=["wait=30"],
        ),
    ] = None,
) -> Preference:
    """The preference of a request; what is not understood is ignored, as the standard demands."""
    for part in (prefer or "").lower().split(","):
        if found := _WAIT.fullmatch(part.strip()):
            seconds = min(int(found[1]), LONGEST_WAIT_SECONDS)
            return Preference(seconds, f"wait={seconds}")
    if "respond-async" in [part.strip() for part in (prefer or "").lower().split(",")]:
        return Preference(0, "respond-async")
    return Preference()


AnyPreference = Annotated[Preference, Depends(preference)]
"""Parameter of a route: the header `Prefer`."""


def negotiate(accept: str | None, offers: Sequence[str]) -> str:
    """The media type that the caller likes best; the first offer wins among equals.

    Raises ProblemError 406 if it accepts none of them.
    """
    ranges = [_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    liked = [(_quality(offer, ranges), -index, offer) for index, offer in enumerate(offers)]
    quality, _, best = max(liked)
    if quality <= 0:
        raise ProblemError("not_acceptable", f"`Accept` may name {', '.join(offers)}")
    return best


def _range(part: str) -> tuple[str, float]:
    media_type, *parameters = (text.strip().lower() for text in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return media_type, _number(value.strip())
    return media_type, 1.0


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"[01](\.\d{0,3})?", text, re.ASCII) else 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """That of the most specific range that covers the offer."""
    for covering in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        matching = [quality for media_type, quality in ranges if media_type == covering]
        if matching:
            return max(matching)
    return 0.0
