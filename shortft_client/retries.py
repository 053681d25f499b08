"""When a request is sent again, and how long to wait before."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import httpx2

from shortft_client.errors import problem_of

Outcome = httpx2.Response | httpx2.RequestError
"""How a request ended: with an answer, or on the way, which broken compression is too."""
_TRANSIENT: Final = frozenset({429, 502, 503, 504})
_LONGEST_ASKED_SECONDS: Final = 60.0
_LOST: Final = frozenset({502, 504})
"""What a proxy says of a service that it has asked without getting an answer."""
_HOPELESS: Final = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
_NEVER_SENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
)


@dataclass(frozen=True, slots=True)
class Retries:
    """Waits double, and each is spread, so that clients cut off together do not return together."""

    most: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 8.0

    def pause_seconds(self, failures: int, outcome: Outcome) -> float | None:
        """The wait after this many failures in a row, the last one included; None to give up."""
        if failures > self.most or not is_transient(outcome):
            return None
        return self.wait_seconds(failures, outcome)

    def wait_seconds(self, failures: int, outcome: Outcome | None) -> float:
        """The same where nobody gives up."""
        usual = min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures - 1, 16))
        return max(usual * random.uniform(0.5, 1.0), _asked_seconds(outcome))


def is_transient(outcome: Outcome) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(outcome, httpx2.RequestError):
        return not isinstance(outcome, _HOPELESS)
    if outcome.status_code == 409:
        # An earlier attempt of this very request is still being answered.
        return problem_of(outcome).get("code") == "idempotency_key_in_flight"
    if outcome.status_code == 429:
        # A quota is not refilled by waiting a few seconds.
        return problem_of(outcome).get("code") != "quota_exceeded"
    return outcome.status_code in _TRANSIENT


def may_be_done(outcome: Outcome) -> bool:
    """Whether the service may have done what was asked, and only its answer was lost."""
    if isinstance(outcome, httpx2.RequestError):
        return not isinstance(outcome, _NEVER_SENT)
    return outcome.status_code in _LOST


def _asked_seconds(outcome: Outcome | None) -> float:
    """What the service asks to wait, within reason."""
    if not isinstance(outcome, httpx2.Response):
        return 0.0
    try:
        asked = float(outcome.headers.get("Retry-After", "0"))
    except ValueError:
        # A date, which only proxies write.
        return 0.0
    return min(max(asked, 0.0), _LONGEST_ASKED_SECONDS)
