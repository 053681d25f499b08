"""The faults of a storm: each is drawn, done, and undone after a while."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import jobs
from store.broker import Queue
from store.errors import InvalidStateError
from store.models import Job
from store.states import TERMINAL, JobStatus
from tests.faults import invariants
from tests.faults.harness import CONTRACT, Service, WorkerHandle
from tests.faults.postgres import PostgresServer
from tests.servers.redis import RedisServer

OPEN: Final = frozenset(JobStatus) - TERMINAL
_DUPLICATES: Final = 5
_LONGEST_DOWN_SECONDS: Final = 7.0


@dataclass(kw_only=True)
class Storm:
    """Strikes one service, again and again; belongs to one thread."""

    service: Service
    draw: random.Random
    redis: RedisServer | None = None
    """None where messages are files."""
    postgres: PostgresServer | None = None
    """None where the rows are in a file."""
    hits: Counter[str] = field(default_factory=Counter)
    """How often each fault met something."""
    cancelled: set[str] = field(default_factory=set)
    """Jobs that were told to end."""
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _thaws: list[threading.Timer] = field(default_factory=list)
    _asleep: set[int] = field(default_factory=set)
    """Frozen workers."""
    _leaving: set[int] = field(default_factory=set)
    """Workers that were told to stop."""
    _redis_is_down: bool = False

    def __post_init__(self) -> None:
        self._faults: dict[Callable[[], bool], int] = {
            self.kill_worker: 4,
            self.kill_trainer: 4,
            self.freeze_worker: 2,
            self.stop_worker: 3,
            self.lose_messages: 2,
            self.ring_again: 2,
            self.cancel: 1,
            self.pause: 2,
        }
        if self.redis is not None:
            self._faults[self.kill_broker] = 2
        if self.postgres is not None:
            self._faults |= {self.terminate_backends: 2, self.restart_database: 1}

    def strike(self) -> str | None:
        """Does one fault and returns its name; None if there was nothing to strike."""
        [fault] = self.draw.choices(list(self._faults), list(self._faults.values()))
        if not fault():
            return None
        name = fault.__name__
        self.hits[name] += 1
        return name

    def undo_what_is_due(self) -> None:
        """Restarts and resumes what was struck long enough ago."""
        now = time.monotonic()
        due = [undo for at, undo in self._later if at <= now]
        self._later = [item for item in self._later if item[0] > now]
        for undo in due:
            undo()

    def clear_up(self) -> None:
        """Undoes everything, and resumes jobs that are paused by now."""
        for thaw in self._thaws:
            thaw.join()
        self._later = [(0.0, undo) for _, undo in self._later]
        self.undo_what_is_due()
        self._resume()

    def keep(self, workers: int) -> None:
        """Starts workers until so many work."""
        for _ in range(workers - len(self._ready_workers())):
            self.service.start_worker()

    def kill_worker(self) -> bool:
        """SIGKILL."""
        worker = self._any_worker()
        if worker is not None:
            worker.kill()
        return worker is not None

    def stop_worker(self) -> bool:
        """SIGTERM."""
        worker = self._any_worker()
        if worker is not None:
            worker.terminate()
            self._leaving.add(worker.pid)
        return worker is not None

    def freeze_worker(self) -> bool:
        """SIGSTOP for longer than the lease."""
        worker = self._any_worker()
        if worker is None:
            return False
        worker.freeze()
        self._asleep.add(worker.pid)
        # In a thread: it may hold SQLite's lock, for which this one would wait in vain.
        thaw = threading.Timer(self.service.settings.lease_seconds * 1.6, self._thaw, [worker])
        thaw.start()
        self._thaws.append(thaw)
        return True

    def kill_trainer(self) -> bool:
        """SIGKILL, with the worker alive."""
        running = sorted(living_trainers(self.service))
        if not running:
            return False
        os.kill(self.draw.choice(running), signal.SIGKILL)
        return True

    def lose_messages(self) -> bool:
        """FLUSHALL, or the loss of all files."""
        if self.redis is None:
            for message in self.service.settings.message_folder().glob("*.msg"):
                message.unlink(missing_ok=True)
            return True
        if self._redis_is_down:
            return False
        with self.redis.client() as client:
            client.flushall()
        return True

    def kill_broker(self) -> bool:
        """SIGKILL; it comes back after some seconds, with nothing."""
        if self.redis is None or self._redis_is_down:
            return False
        self.redis.kill()
        self._redis_is_down = True
        self._after(self.draw.uniform(1.0, _LONGEST_DOWN_SECONDS), self._start_broker)
        return True

    def ring_again(self) -> bool:
        """Wake-ups that mean nothing."""
        for _ in range(_DUPLICATES):
            self.service.doorbell.ring(Queue.TRAIN)
            time.sleep(0.02)
        return True

    def cancel(self) -> bool:
        """A user's cancel, of a job in any state."""
        job_id = self._say(jobs.cancel)
        if job_id is not None:
            self.cancelled.add(job_id)
        return job_id is not None

    def pause(self) -> bool:
        """A user's pause, and a resume later."""
        job_id = self._say(jobs.pause)
        if job_id is not None:
            self._after(self.draw.uniform(1.0, 4.0), self._resume)
        return job_id is not None

    def terminate_backends(self) -> bool:
        """Ends every connection to PostgreSQL."""
        return self.postgres is not None and self.postgres.terminate_backends() > 0

    def restart_database(self) -> bool:
        """A crash of PostgreSQL; it comes back after up to seven seconds."""
        if self.postgres is None:
            return False
        self.postgres.stop()
        time.sleep(self.draw.uniform(1.0, _LONGEST_DOWN_SECONDS))
        self.postgres.start()
        return True

    def _say(self, verb: Callable[[Session, str], object]) -> str | None:
        """The job that was told, unless there is none that may be."""
        found = self._jobs_in(OPEN)
        if not found:
            return None
        job_id = self.draw.choice(found)
        try:
            self.service.database.transact(lambda session: verb(session, job_id))
        except InvalidStateError:
            return None
        return job_id

    def _resume(self) -> None:
        """Whatever is paused by now; what is still being paused comes the next time."""
        for job_id in self._jobs_in({JobStatus.PAUSED}):
            self.service.database.transact(partial(jobs.resume, job_id=job_id))
            self.service.doorbell.ring(Queue.TRAIN)

    def _thaw(self, worker: WorkerHandle) -> None:
        self._asleep.discard(worker.pid)
        worker.thaw()

    def _start_broker(self) -> None:
        if self.redis is not None:
            self.redis.start()
        self._redis_is_down = False

    def _after(self, seconds: float, undo: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, undo))

    def _ready_workers(self) -> list[WorkerHandle]:
        return [
            worker
            for worker in self.service.workers
            if worker.pid not in self._leaving and worker.process.poll() is None
        ]

    def _any_worker(self) -> WorkerHandle | None:
        awake = [worker for worker in self._ready_workers() if worker.pid not in self._asleep]
        return self.draw.choice(awake) if awake else None

    def _jobs_in(self, statuses: Collection[JobStatus]) -> list[str]:
        with self.service.database.read() as session:
            found = session.scalars(select(Job.id).where(Job.status.in_(statuses)))
            return list(found.all())


def living_trainers(service: Service) -> set[int]:
    """Contract trainers that still run; a number that another program has by now is none."""
    return {pid for pid in invariants.alive(invariants.trainers(service)) if _is_trainer(pid)}


def _is_trainer(pid: int) -> bool:
    try:
        return CONTRACT.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
