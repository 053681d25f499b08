"""The trainer: one attempt at one job, in a process of its own.

It reads its job file, works in its run folder, and reports on stdout; see `worker/protocol.py`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shortft_core.events import AlertRaised, Event, PhaseStarted, to_envelope
from shortft_core.spec import AlignSpec
from shortft_core.spec.distil import DistilSpec
from shortft_core.spec.read import parse_job
from worker import locks
from worker.children.lifeline import Lifeline, die_with_parent
from worker.children.wire import Wire
from worker.protocol import Ended, ExitCode, TrainerJob
from worker.settings import LaunchSettings

_LOG = logging.getLogger(__name__)
ALIVE_SECONDS: Final = 30.0
"""How often work that reports nothing says that it goes on."""


def main(arguments: list[str]) -> int:
    """Works on the job of the file that is the only argument; returns the exit code."""
    wire = Wire.take_stdout()
    job = TrainerJob.model_validate_json(Path(arguments[0]).read_text(encoding="utf-8"))
    rank = LaunchSettings().rank
    lifeline = Lifeline(job.lease_seconds, job.renewed_at, hang_seconds=job.hang_seconds)
    if rank == 0:
        lifeline.start()
    else:
        # It hears nobody, and leaves SIGTERM as it is, which also ends a process that hangs.
        die_with_parent()
    ended = _work(job, Attempt(job, wire, lifeline), is_first=rank == 0)
    if rank == 0:
        wire.send(ended.model_dump(mode="json"))
        return ended.code
    # A launcher takes any other code of any process for the failure of all.
    return ExitCode.DONE


def _work(job: TrainerJob, attempt: Attempt, *, is_first: bool) -> Ended:
    from worker.children.endings import ending_of

    paths = [Path(path) for path in job.locks] if is_first else []
    lifeline = attempt.lifeline
    with locks.held(paths, give_up=attempt.should_stop, on_wait=attempt.on_wait) as free:
        if not free:
            return Ended(code=lifeline.ending or ExitCode.STOPPED)
        try:
            return Ended(code=attempt.run())
        except Exception as error:  # noqa: BLE001  whatever it is, the supervisor has to be told
            _LOG.exception("the job failed")
            return ending_of(error)


@dataclass
class Attempt:
    """The run, and what decides how it ends."""

    job: TrainerJob
    wire: Wire
    lifeline: Lifeline
    paused_by_guard: bool = False
    _alive_at: float = field(default_factory=time.monotonic)

    def run(self) -> ExitCode:
        """Trains or distils until done or told to stop."""
        spec = parse_job(self.job.spec)
        folder = Path(self.job.run_folder)
        if isinstance(spec, DistilSpec):
            return self._distil(spec, folder)
        return self._align(spec, folder)

    def on_wait(self, path: Path) -> None:
        """Says why nothing happens."""
        text = f"waiting until another trainer frees {path.stem}"
        self.emit(PhaseStarted(phase="waiting", message=text))

    def should_stop(self) -> bool:
        """Whether the work shall be saved and ended; tells the supervisor that it was asked.

        Waiting and evaluating say nothing else for long, and are no hang.
        """
        now = time.monotonic()
        if now - self._alive_at >= ALIVE_SECONDS:
            self._alive_at = now
            self.wire.send({"object": "alive"})
        return self.lifeline.should_stop()

    def emit(self, event: Event) -> None:
        """Sends an event to the supervisor."""
        self.wire.send(to_envelope(event))
        if isinstance(event, AlertRaised) and event.action == "pause":
            self.paused_by_guard = True

    def _align(self, spec: AlignSpec, path: Path) -> ExitCode:
        from shortft_core.report import write_report
        from shortft_core.run import RunFolder, run_job

        state = run_job(
            spec,
            RunFolder(path),
            emit=self.emit,
            should_stop=self.should_stop,
            save_adapters=True,
        )
        if not (state.is_complete or state.halted):
            # First: a stop that comes beside it would start the job again.
            if self.paused_by_guard:
                return ExitCode.RESTING
            if self.lifeline.ending is not None:
                return self.lifeline.ending
        # Else the wall time is over, which is an end like any other.
        return self._finish(lambda: write_report(path))

    def _distil(self, spec: DistilSpec, path: Path) -> ExitCode:
        from shortft_core.distil.run import run_distil

        self.emit(PhaseStarted(phase="preparing"))
        made = run_distil(spec, path, emit=self.emit, should_stop=self.should_stop)
        if made is None:
            return self.lifeline.ending or ExitCode.STOPPED
        return ExitCode.DONE

    def _finish(self, write_report: Callable[[], object]) -> ExitCode:
        self.emit(PhaseStarted(phase="export"))
        write_report()
        return ExitCode.DONE


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    sys.exit(main(sys.argv[1:]))
