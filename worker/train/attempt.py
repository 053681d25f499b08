"""One attempt at one job: its trainer from the first byte restored to the last byte published."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy.orm import Session

from shortft_core.errors import ArtifactError
from shortft_core.events import (
    CheckpointSaved,
    EvaluationDone,
    Event,
    LogLine,
    PhaseStarted,
    RunFinished,
    RunStarted,
    SamplesReady,
    from_envelope,
)
from store import events, leases
from store.errors import InvalidStateError, LeaseLostError, NotFoundError
from store.leases import Claim
from store.transitions import Lease
from worker.outages import StorageError
from worker.pipes import Child, Message
from worker.process import Context
from worker.protocol import Control, Ended, ExitCode, TrainerJob
from worker.settings import child_environment
from worker.train.endings import Conclusion, conclude
from worker.train.lease_keeper import LeaseKeeper
from worker.train.publish import store_result
from worker.train.records import Records
from worker.train.restore import Restorer
from worker.train.stored import RunStorage

_LOG: Final = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 0.1
_LINGER_SECONDS: Final = 3.0
"""How long others may hold the pipes of a trainer that is gone, and again once all were killed."""
JOB_FILE: Final = "job.json"


@dataclass(kw_only=True)
class Attempt:
    """Works on a claim until the job is given back, published, or somebody else's."""

    context: Context
    claim: Claim
    claimed_at: float
    """Of `elapsed_seconds`: before the claim, so that no lease seems younger than it is."""
    folder: Path
    gpus: tuple[str, ...]
    """What the trainer may see of the GPUs; none on a machine without."""
    locks: tuple[Path, ...]
    child: Child | None = None
    ended: Ended | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    killed: str | None = None
    """Why this side killed the trainer."""
    _best_due: int | None = None
    _asked_at: float | None = None
    _stopping_at: float | None = None
    """When this worker was first seen to shut down."""
    _has_result: bool = False
    _gone_at: float | None = None
    _heard_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        context, lease = self.context, self.claim.lease
        self.began_at = time.monotonic()
        self.keeper = LeaseKeeper(
            context.database,
            lease,
            context.store_settings,
            control_seconds=context.settings.control_seconds,
            claimed_at=self.claimed_at,
        )
        self.records = Records(context.database, lease, self._gives_up)
        self.storage = RunStorage(
            context.objects, self.records, self.folder, self._gives_up_storing
        )

    def run(self) -> None:
        """Returns when the attempt is over, whatever came of it."""
        self.keeper.start()
        try:
            conclusion = self._work()
            # No more renewals: the lease ends with the transaction that follows.
            self.keeper.stop()
            conclude(self.records, conclusion, self.context.store_settings.backoff_seconds)
        except LeaseLostError as error:
            _LOG.warning("%s: nothing of it is published", error)
        finally:
            if self.child is not None:
                self.child.kill()
            self.keeper.stop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _work(self) -> Conclusion:
        try:
            spec = self._restorer().restore()
        except (StorageError, OSError) as error:
            return _unstored(error)
        except NotFoundError as error:
            return Conclusion(ExitCode.REFUSED, "dataset_error", str(error))
        if self.keeper.wish is not None or self.context.stopping.is_set():
            return Conclusion(ExitCode.STOPPED)
        try:
            job_file = self._write_job(spec)
        except OSError as error:
            return _unstored(error)
        try:
            child = self._spawn(job_file)
        except OSError as error:
            return Conclusion(ExitCode.FAILED, "internal", f"no trainer could be started: {error}")
        self._supervise(child)
        return self._conclusion(child)

    def _restorer(self) -> Restorer:
        return Restorer(
            job=self.claim.job,
            objects=self.context.objects,
            records=self.records,
            folder=self.folder,
            give_up=self._gives_up,
        )

    def _write_job(self, spec: dict[str, Any]) -> Path:
        path = self.folder / JOB_FILE
        lease_seconds = self.context.store_settings.lease_seconds
        job = TrainerJob(
            job_id=self.claim.job.id,
            lease_token=self.claim.lease.token,
            spec=spec,
            run_folder=str(self.folder),
            lease_seconds=lease_seconds,
            renewed_at=self.keeper.renewed_at,
            # Later than the supervisor, if there still is one: it can say what happened.
            hang_seconds=self.context.settings.no_progress_seconds + lease_seconds,
            locks=tuple(str(lock) for lock in self.locks),
        )
        path.write_text(job.model_dump_json(), encoding="utf-8")
        return path

    def _spawn(self, job_file: Path) -> Child:
        seen = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus), "SHORTFT_DEVICE": "cuda"}
        child = Child.spawn(
            [*self.context.settings.trainer_command, str(job_file)],
            env=child_environment(seen if self.gpus else {}),
            cwd=self.folder,
        )
        self.child = child
        self._heard_at = time.monotonic()
        self.keeper.attach(lambda order: child.send(order.model_dump()))
        return child

    def _supervise(self, child: Child) -> None:
        """Passes on what the trainer says until it is gone; raises LeaseLostError."""
        while not child.ended:
            message = child.receive(_LOOK_SECONDS)
            if message is not None:
                self._hear(message)
                # Only now: what it reports may take long to store.
                self._heard_at = time.monotonic()
            self._follow_log(child)
            self.records.flush_if_due()
            self._watch(child)
        child.wait(0)
        self._follow_log(child)
        self._store_best()
        self.records.flush()

    def _follow_log(self, child: Child) -> None:
        lines = child.new_log_lines()
        if lines:
            # A download draws its bar there: it is no hang.
            self._heard_at = time.monotonic()
            self.records.note_lines(lines)
            for line in lines:
                _LOG.info("%s: %s", self.claim.job.id, line)

    def _hear(self, message: Message) -> None:
        if message.get("object") == "ended":
            self.ended = Ended.model_validate(message)
            return
        if message.get("object") == "alive":
            return
        try:
            event = from_envelope(message)
        except ArtifactError as error:
            self.records.note_lines([f"unknown message of the trainer: {error}"])
            return
        self._take(event)

    def _take(self, event: Event) -> None:
        if not isinstance(event, EvaluationDone | SamplesReady):
            # The trainer writes `best/` after its pictures, and before anything else.
            self._store_best()
        match event:
            case CheckpointSaved():
                self.storage.checkpoint(event)
            case SamplesReady():
                self.storage.samples(event)
            case LogLine():
                # A distillation tells of each chunk that it has recorded.
                self.storage.trajectories()
                self.records.note(event)
            case RunStarted():
                self.records.write(lambda session, lease: _start(session, lease, event))
            case _:
                self.records.note(event)
        self._remember(event)

    def _remember(self, event: Event) -> None:
        match event:
            case PhaseStarted(phase="preparing"):
                # Until now it may have waited for a GPU.
                self.began_at = time.monotonic()
            case EvaluationDone(is_best=True):
                self._best_due = event.update
            case RunFinished():
                include = {"outcome", "updates", "seconds"}
                self.summary = event.model_dump(mode="json", include=include)
            case _:
                pass

    def _store_best(self) -> None:
        if self._best_due is not None:
            self.storage.best(self._best_due)
            self._best_due = None

    def _watch(self, child: Child) -> None:
        """Ends a trainer whose time has come, by asking and then by force."""
        now = time.monotonic()
        if self.keeper.lost.is_set():
            child.kill()
            raise LeaseLostError(self.claim.lease.row_id, self.claim.lease.token)
        if self._asked_at is None and self._is_to_end(child):
            self._asked_at = now
        settings = self.context.settings
        if self._asked_at is not None and now - self._asked_at > settings.grace_seconds:
            self._kill(child, f"it did not end within {settings.grace_seconds:g} s")
        if now - self._heard_at > settings.no_progress_seconds:
            self._kill(child, f"it gave no sign of life for {settings.no_progress_seconds:g} s")
        if self._is_overdue(now):
            self._kill(child, "its time was over long ago")
        if self.killed is not None or child.process.poll() is not None:
            self._bury(child, now)

    def _bury(self, child: Child, now: float) -> None:
        """Bounds how long others may hold the pipes of a trainer, or itself may take to die."""
        self._gone_at = self._gone_at or now
        if child.ended:
            return
        if now - self._gone_at > _LINGER_SECONDS:
            child.kill()
        if now - self._gone_at > 2 * _LINGER_SECONDS:
            child.give_up()

    def _is_to_end(self, child: Child) -> bool:
        stopping, wish = self._is_stopping(), self.keeper.wish
        if stopping:
            child.send(Control(control="stop").model_dump())
        if stopping or wish == "pause":
            # No later checkpoint makes up for the last one.
            self.storage.patience_seconds = self.context.settings.grace_seconds
        return stopping or wish is not None

    def _is_stopping(self) -> bool:
        if not self.context.stopping.is_set():
            return False
        self._stopping_at = self._stopping_at or time.monotonic()
        return True

    def _is_overdue(self, now: float) -> bool:
        """The trainer ends by itself after `max_runtime_seconds`, unless it hangs."""
        limit = self.claim.job.spec.get("max_runtime_seconds")
        slack = self.context.settings.no_progress_seconds
        return limit is not None and now - self.began_at > limit + slack

    def _kill(self, child: Child, why: str) -> None:
        if self.killed is None:
            self.killed = why
            child.kill()

    def _conclusion(self, child: Child) -> Conclusion:
        code = self.ended.code if self.ended is not None else child.wait(0)
        cause = child.exit_cause() if self.killed is None else f"killed, because {self.killed}"
        if self.killed is not None and self._asked_at is not None:
            code = ExitCode.STOPPED
        if self.ended is None and code == ExitCode.DONE:
            # A library left, or a launcher: nobody said that there is a result.
            code = ExitCode.FAILED
        if code == ExitCode.DONE:
            return self._store_result()
        said = self.ended or Ended(code=ExitCode.FAILED)
        return Conclusion(code, said.error_code, said.error_message, cause, child.log_tail())

    def _store_result(self) -> Conclusion:
        self._has_result = True
        try:
            result = store_result(self.storage, self.records.lease, self.folder, self.claim.job)
        except (StorageError, OSError) as error:
            if self.keeper.wish is not None:
                return Conclusion(ExitCode.STOPPED)
            return _unstored(error)
        return Conclusion(ExitCode.DONE, result=replace(result, summary=self.summary))

    def _gives_up(self) -> bool:
        """Whether waiting for a database or a store has no more sense."""
        if self.keeper.lost.is_set():
            return True
        if not self._is_stopping() or self._stopping_at is None:
            return False
        return time.monotonic() - self._stopping_at > self.context.settings.grace_seconds

    def _gives_up_storing(self) -> bool:
        """Also where nobody would see the result any more."""
        return self._gives_up() or (self._has_result and self.keeper.wish is not None)


def _unstored(error: StorageError | OSError) -> Conclusion:
    """The store, or the disk of this machine, is away or full: nobody's fault, and it passes."""
    return Conclusion(ExitCode.FAILED, "storage_error", str(error))


def _start(session: Session, lease: Lease, event: RunStarted) -> None:
    """The first update begins; a job that is about to be cancelled or paused only notes it."""
    try:
        leases.start(session, lease, event)
    except InvalidStateError:
        events.append(session, lease, [event])
