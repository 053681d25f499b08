"""What a reader of an event stream knows: the last number it saw, and whether there is more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import httpx2
from pydantic import ValidationError

from shortft_client.answers import JobEvent
from shortft_client.call import path, unexpected
from shortft_client.errors import UnreachableError, refusal
from shortft_client.retries import Outcome, Retries, is_transient

SILENCE_SECONDS: Final = 50.0
"""Three pings: a connection that is silent for so long is dead."""
_SERVED: Final = 200
_NO_STREAM: Final = (httpx2.SSEError, httpx2.DecodingError)
"""A proxy's page, or an event that is too long: the next connection brings the same."""


class Following:
    """A stream over as many connections as it takes: no event is lost, none comes twice."""

    def __init__(self, job_id: str, after: int, retries: Retries, patience_seconds: float) -> None:
        self.path = path("jobs", job_id, "events", "stream")
        self.seen = after
        """Number of the last event."""
        self.is_done = False
        """Whether the job is over and everything has been seen."""
        self._retries = retries
        self._patience_seconds = patience_seconds
        self._failures = 0
        self._is_served = False
        self._heard_at = time.monotonic()
        """When the service last said anything, pings included."""

    def headers(self) -> Mapping[str, str]:
        """Asks for what follows the last event."""
        return {"Last-Event-ID": str(self.seen)}

    def begin(self, response: httpx2.Response) -> bool:
        """Whether events follow."""
        self._is_served = response.is_success
        return self._is_served

    def events(self, frames: Iterable[httpx2.ServerSentEvent]) -> Iterator[JobEvent]:
        """The new events of one connection; raises ServerFaultError for what is no event."""
        for frame in frames:
            yield from self.take(frame)

    def take(self, frame: httpx2.ServerSentEvent) -> tuple[JobEvent, ...]:
        """The event of a frame; none for `done`, for what was seen, and for what says nothing.

        Raises ServerFaultError for a frame that is no event.
        """
        if frame.event == "done":
            self.is_done = True
        elif frame.data:
            event = _event(frame.data)
            self._failures, self._heard_at = 0, time.monotonic()
            if event.seq > self.seen:
                self.seen = event.seq
                return (event,)
        return ()

    def pause_seconds(self, outcome: Outcome, address: str) -> float:
        """The wait before the next connection, after one that ended as `outcome` says.

        Raises ServiceError for a refusal that lasts, and UnreachableError when patience is over.
        """
        if self._is_served:
            self._hear(outcome)
        elif isinstance(outcome, httpx2.Response) and not is_transient(outcome):
            raise refusal(outcome)
        self._is_served = False
        self._failures += 1
        if time.monotonic() - self._heard_at > self._patience_seconds:
            raise UnreachableError(address, str(outcome) or type(outcome).__name__)
        return self._retries.wait_seconds(self._failures, outcome)

    def _hear(self, outcome: Outcome) -> None:
        """Notes until when a connection was alive that has been served."""
        if isinstance(outcome, _NO_STREAM):
            return
        if isinstance(outcome, httpx2.Response):
            # It was closed because its time was over or the service stops.
            self._failures = 0
        # Pings keep a connection from timing out, so that any other end is its last sign of life.
        silent = SILENCE_SECONDS if isinstance(outcome, httpx2.ReadTimeout) else 0.0
        self._heard_at = max(self._heard_at, time.monotonic() - silent)


def _event(text: str) -> JobEvent:
    try:
        return JobEvent.model_validate_json(text)
    except ValidationError as error:
        raise unexpected(_SERVED, text, error) from error
