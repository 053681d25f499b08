"""The generation process of a slot: started early, kept between batches, replaced when it ends."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from shortft_core.spec import Source
from store.attempts import Ending
from store.errors import StoreError
from worker.generate.messages import REPORTS, Answer, Batch, Done, Preload, Ready
from worker.pipes import Child
from worker.settings import WorkerSettings, child_environment

_LOG: Final = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 0.25
_END_SECONDS: Final = 2.0
_START_SECONDS: Final = 120.0
"""A process that loads its libraries may be silent for so long."""


class ChildLostError(StoreError):
    """The process died or hung before it had answered everything."""

    def __init__(self, cause: str, log_tail: str, ending: Ending) -> None:
        super().__init__(cause, log_tail, ending)
        self.cause = cause
        self.log_tail = log_tail
        self.ending = ending
        """What it means for the requests: one that was not ready cannot have died of them."""

    def __str__(self) -> str:
        return f"the generation process was lost: {self.cause}"


class WarmChild:
    """One process at a time; belongs to one thread."""

    def __init__(self, settings: WorkerSettings, extra_env: Mapping[str, str]) -> None:
        self._settings = settings
        self._env = child_environment(extra_env)
        self._child: Child | None = None
        self.was_ready = False
        """Whether the process has loaded its libraries."""

    @property
    def pid(self) -> int | None:
        """Of the process, if one runs."""
        return self._child.pid if self._child is not None else None

    @property
    def has_ended(self) -> bool:
        """Whether its process died by itself."""
        return self._child is not None and self._child.process.poll() is not None

    def start(self) -> Child:
        """The running process; a new one where there is none, told what to load."""
        if self._child is not None and not self.has_ended:
            return self._child
        if self._child is not None:
            _LOG.warning("the idle generation process ended: %s", self._child.exit_cause())
        command = [sys.executable, "-m", "worker.children.generator"]
        command += ["--memory-mb", str(self._settings.generate_memory_mb)]
        self._child = Child.spawn(command, env=self._env, cwd=_folder(self._settings.work_dir))
        self.was_ready = False
        for name in self._settings.generate_preload:
            self._child.send(Preload(base_model=Source(name=name)).model_dump(mode="json"))
        return self._child

    def answers(self, batch: Batch, give_up: Callable[[], bool]) -> Iterator[Answer]:
        """The answers as they come; ends early, and kills the process, once `give_up` says so.

        Raises ChildLostError when the process dies or says nothing for too long; the next call
        starts another one.
        """
        child = self.start()
        child.send(batch.written().model_dump(mode="json"))
        heard_at = time.monotonic()
        while not give_up():
            message = child.receive(_LOOK_SECONDS)
            if self._pass_on_log(child):
                # A download draws its bar there: it is no hang.
                heard_at = time.monotonic()
            if message is None:
                self._check(child, heard_at)
                continue
            heard_at = time.monotonic()
            report = REPORTS.validate_python(message)
            if isinstance(report, Ready):
                self.was_ready = True
            elif isinstance(report, Done) and report.batch == batch.id:
                return
            elif isinstance(report, Answer) and report.batch == batch.id:
                yield report
                heard_at = time.monotonic()
        self.close()

    def close(self) -> None:
        """Ends the process."""
        if self._child is not None:
            self._child.kill(_END_SECONDS)
            self._child = None

    def _check(self, child: Child, heard_at: float) -> None:
        if child.ended:
            cause = child.exit_cause()
        elif time.monotonic() - heard_at > (patience := self._patience_seconds()):
            child.kill()
            cause = f"it said nothing for {patience:g} s"
        else:
            return
        self._child = None
        ending = Ending.CRASHED if self.was_ready else Ending.LEASE_EXPIRED
        raise ChildLostError(cause, child.log_tail(), ending)

    def _patience_seconds(self) -> float:
        patience = self._settings.generate_timeout_seconds
        return patience if self.was_ready else max(patience, _START_SECONDS)

    def _pass_on_log(self, child: Child) -> bool:
        lines = child.new_log_lines()
        for line in lines:
            _LOG.info("generator %d: %s", child.pid, line)
        return bool(lines)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
