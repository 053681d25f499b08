"""What becomes of a job when an attempt is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from store import jobs, leases, results
from store.attempts import Ending, Limits
from store.errors import InvalidStateError
from store.leases import Report
from store.states import JobStatus
from store.transitions import Lease, lock_held
from worker.protocol import ExitCode
from worker.train.publish import Result
from worker.train.records import Records

_ENDINGS: Final[dict[int | None, Ending]] = {
    # Where a cancel or a pause came before the result.
    ExitCode.DONE: Ending.STOPPED,
    ExitCode.STOPPED: Ending.STOPPED,
    ExitCode.RESTING: Ending.STOPPED,
    ExitCode.FENCED: Ending.LEASE_EXPIRED,
}
_NOBODYS_FAULT: Final = "storage_error"
"""A store that is away or full: repeated as often as after a lost worker."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How an attempt ended: an exit code of the trainer or of a launcher, and what was said."""

    code: int | None
    error_code: str | None = None
    error_message: str | None = None
    exit_cause: str | None = None
    log_tail: str | None = None
    result: Result | None = None
    """Stored and waiting for its rows, where the run is done."""

    @property
    def report(self) -> Report:
        """For the row."""
        return Report(
            error_code=self.error_code,
            error_message=self.error_message or self.exit_cause,
            exit_cause=self.error_message or self.exit_cause,
            log_tail=self.log_tail or None,
        )

    @property
    def ending(self) -> Ending:
        """Whose fault it was."""
        if self.error_code == _NOBODYS_FAULT:
            return Ending.LEASE_EXPIRED
        return _ENDINGS.get(self.code, Ending.CRASHED)


def conclude(records: Records, conclusion: Conclusion, backoff_seconds: float) -> None:
    """Publishes the result, or moves the job on without one; raises LeaseLostError."""
    limits = Limits(backoff_seconds=backoff_seconds)

    def work(session: Session, lease: Lease) -> None:
        if conclusion.result is not None and _publish(session, lease, conclusion.result):
            return
        if conclusion.code == ExitCode.REFUSED:
            leases.fail(session, lease, conclusion.report)
            return
        if conclusion.code == ExitCode.RESTING:
            _pause(session, lease)
        leases.release(session, lease, conclusion.ending, conclusion.report, limits)

    records.write(work)


def _publish(session: Session, lease: Lease, result: Result) -> bool:
    """Whether the result came before any cancel or pause."""
    try:
        results.succeed(session, lease, result.artifacts, result.adapter, result.summary)
    except InvalidStateError:
        return False
    return True


def _pause(session: Session, lease: Lease) -> None:
    """Where nobody asked for it, it was the guard of the job itself."""
    job = lock_held(session, lease)
    if job.status in {JobStatus.PREPARING, JobStatus.RUNNING}:
        jobs.pause(session, job.id)
