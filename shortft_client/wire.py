"""How requests look on the wire, and what becomes of their outcomes; nothing here waits."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import httpx2

from shortft_client.call import Call
from shortft_client.errors import UnreachableError, refusal
from shortft_client.following import SILENCE_SECONDS
from shortft_client.retries import Outcome

T = TypeVar("T")
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 60.0
STREAM_TIMEOUT: Final = httpx2.Timeout(SILENCE_SECONDS, connect=_CONNECT_SECONDS)
_NOT_FOUND: Final = 404
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def options(server: str, api_key: str | None) -> dict[str, Any]:
    """Arguments of an HTTP client; no proxy stands between a machine and itself."""
    headers = {"Accept": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    return {
        "base_url": server,
        "headers": headers,
        "timeout": _timeout(0.0),
        "trust_env": httpx2.URL(server).host not in _LOOPBACK,
    }


def request_of(http: httpx2.Client | httpx2.AsyncClient, call: Call[Any]) -> httpx2.Request:
    """The request that a call describes."""
    return http.build_request(
        call.method,
        call.path,
        params=call.query or None,
        json=call.body,
        data=call.form,
        files=list(call.files) or None,
        headers=call.headers,
        timeout=_timeout(call.held_seconds),
    )


def result_of(call: Call[T], outcome: Outcome, address: str, *, lost: bool = False) -> T:
    """What the last outcome means; raises ServiceError or UnreachableError.

    `lost`: an earlier attempt may have been done, and only its answer was lost.
    """
    if isinstance(outcome, httpx2.Response):
        # What the earlier attempt has removed is not there for this one.
        is_removed = lost and call.method == "DELETE" and outcome.status_code == _NOT_FOUND
        if outcome.is_success or is_removed:
            return call.read(outcome)
    raise failure(outcome, address)


def failure(outcome: Outcome, address: str) -> Exception:
    """The error of an outcome that is no success."""
    if isinstance(outcome, httpx2.Response):
        return refusal(outcome)
    error = UnreachableError(address, str(outcome) or type(outcome).__name__)
    error.__cause__ = outcome
    return error


def _timeout(held_seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(_READ_SECONDS + held_seconds, connect=_CONNECT_SECONDS)
