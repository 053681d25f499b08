"""What can go wrong between a client and the service.

To catch everything, catch ClientError; to tell causes apart, read `code` of a ServiceError, since
codes may be added while the classes stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx2

from shortft_core.errors import ShortFTError


class ClientError(ShortFTError):
    """Root of the errors of this package."""


class UnreachableError(ClientError):
    """No answer came, after all retries."""

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(address, cause)
        self.address = address
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.address} does not answer ({self.cause}). Does the service run there?"


class NotInTimeError(ClientError):
    """What was waited for has not ended yet; it goes on in the service."""

    def __init__(self, name: str, status: str, seconds: float) -> None:
        super().__init__(name, status, seconds)
        self.name = name
        self.status = status
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.name} is still {self.status} after {self.seconds:g} seconds"


class ServiceError(ClientError):
    """The service refused; `problem` is its whole answer (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        """The cause for programs; an open set of words."""
        return str(self.problem.get("code") or "")

    @property
    def detail(self) -> str:
        """The cause for people."""
        return str(self.problem.get("detail") or self.problem.get("title") or "")

    @property
    def param(self) -> str | None:
        """The field that is wrong, if it is one."""
        found = self.problem.get("param")
        return None if found is None else str(found)

    @property
    def mistakes(self) -> tuple[Mapping[str, Any], ...]:
        """All mistakes of the request: `where`, `pointer`, `code` and `message` of each."""
        return tuple(self.problem.get("errors") or ())

    @property
    def request_id(self) -> str | None:
        """Finds the request in the log of the service."""
        found = self.problem.get("request_id")
        return None if found is None else str(found)

    def __str__(self) -> str:
        listed = [
            f"{mistake.get('pointer')}: {mistake.get('message')}" for mistake in self.mistakes
        ]
        lines = [f"{self.detail} ({self.status} {self.code})", *(listed if listed[1:] else ())]
        return "\n  ".join(lines)


class RejectedError(ServiceError):
    """The request itself is wrong: 400, 406, 413, 415, 416, 422."""


class NotAllowedError(ServiceError):
    """No key, or one that does not open this: 401, 403."""


class NotThereError(ServiceError):
    """There is no such thing, or no longer: 404, 410."""


class ConflictError(ServiceError):
    """The state does not allow it: 409."""


class LimitedError(ServiceError):
    """Too much at once: 429."""


class ServerFaultError(ServiceError):
    """The service failed, or is not able to answer now: 5xx; or its answer cannot be read."""


_CLASSES: Final[Mapping[int, type[ServiceError]]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotThereError,
    409: ConflictError,
    410: NotThereError,
    429: LimitedError,
}


def refusal(response: httpx2.Response) -> ServiceError:
    """The error of an answer with a status from 300, whose body has been read."""
    status = response.status_code
    kind = _CLASSES.get(status, ServerFaultError if status >= 500 else RejectedError)
    return kind(status, problem_of(response))


def problem_of(response: httpx2.Response) -> Mapping[str, Any]:
    """The problem that a body describes; of anything else, such as a proxy's page, its start."""
    try:
        content = response.json()
    except ValueError:
        content = None
    if isinstance(content, dict):
        return content
    return {"detail": f"{response.reason_phrase}: {response.text[:200]}"}
