"""What a reader of an event stream knows: the last number it saw, and whether there is more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import httpx2

from shortft_client.answers import JobEvent
from shortft_client.call import path
from shortft_client.errors import UnreachableError, refusal
from shortft_client.retries import Outcome, Retries, is_transient

SILENCE_SECONDS: Final = 50.0
"""Three pings: a connection that is silent for so long is dead."""


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
        self._heard_at = time.monotonic()

    def headers(self) -> Mapping[str, str]:
        """Asks for what follows the last event."""
        return {"Last-Event-ID": str(self.seen)}

    def events(self, frames: Iterable[httpx2.ServerSentEvent]) -> Iterator[JobEvent]:
        """The new events of one connection."""
        for frame in frames:
            yield from self.take(frame)

    def take(self, frame: httpx2.ServerSentEvent) -> tuple[JobEvent, ...]:
        """The event of a frame; none for `done`, for what was seen, and for what says nothing."""
        if frame.event == "done":
            self.is_done = True
        elif frame.data:
            event = JobEvent.model_validate_json(frame.data)
            self._failures, self._heard_at = 0, time.monotonic()
            if event.seq > self.seen:
                self.seen = event.seq
                return (event,)
        return ()

    def pause_seconds(self, outcome: Outcome, address: str) -> float:
        """The wait before the next connection, after one that ended as `outcome` says.

        Raises ServiceError for a refusal that lasts, and UnreachableError when patience is over.
        """
        if isinstance(outcome, httpx2.Response):
            if outcome.is_success:
                # It was served, and closed because its time was over or the service stops.
                self._failures, self._heard_at = 0, time.monotonic()
            elif not is_transient(outcome):
                raise refusal(outcome)
        self._failures += 1
        if time.monotonic() - self._heard_at > self._patience_seconds:
            raise UnreachableError(address, str(outcome) or type(outcome).__name__)
        return self._retries.wait_seconds(self._failures, outcome)
