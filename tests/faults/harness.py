"""A service under test: worker processes that are killed, frozen and started, and their rows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shortft_core import catalog
from shortft_core.spec import AlignSpec
from store import events, jobs
from store.broker import Queue
from store.doorbell import Doorbell, open_doorbell
from store.engine import Database, open_database
from store.ids import new_id
from store.models import Job, JobEvent
from store.objects import ObjectStore, open_objects
from store.settings import StoreSettings
from store.states import TERMINAL, JobStatus
from tests.servers.forks import Fork, fork_server
from tests.servers.processes import ends_with_parent
from worker.process import Context
from worker.settings import WorkerSettings, child_environment
from worker.train.supervisor import TrainStation

CONTRACT: Final = Path(__file__).parents[1] / "trainers" / "contract.py"
TIMES: Final = {
    "lease_seconds": 3.0,
    "heartbeat_seconds": 0.5,
    "sweep_seconds": 0.5,
    "wake_again_seconds": 1.0,
    "backoff_seconds": 0.1,
}
"""Production's times divided by thirty or so."""
WORKER_TIMES: Final = {"control_seconds": 0.2, "grace_seconds": 5.0, "no_progress_seconds": 20.0}
FAST_TRAINER: Final = """
read -r line < "$1"
echo "$line" >> "$0"
echo '{"object": "ended", "code": 0}'
"""
"""For `sh -c`, with a file to which it adds its job file: it trains nothing, and is done."""
Label = str | int | float


@dataclass(frozen=True)
class Line:
    """One line of the contract trainers' journal."""

    what: str
    job_id: str
    token: int
    pid: int
    update: int


@dataclass
class WorkerHandle:
    """A worker process and what a test may do to it."""

    process: subprocess.Popen[bytes] | Fork
    log: Path

    @property
    def pid(self) -> int:
        """Of the worker itself."""
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.process.kill()
        self.process.wait(timeout=30)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: the orderly end begins."""
        self.process.terminate()

    def wait(self, seconds: float = 30.0) -> int:
        """The exit code."""
        return self.process.wait(timeout=seconds)


@dataclass
class Service:
    """Rows, objects and workers on one stack; `service` makes one and cleans up behind it."""

    settings: StoreSettings
    folder: Path
    database: Database
    objects: ObjectStore
    doorbell: Doorbell
    is_forked: bool = False
    """Whether its processes come from one that has imported all, which saves seconds for each."""
    extra_env: dict[str, str] = field(default_factory=dict)
    workers: list[WorkerHandle] = field(default_factory=list)
    stations: list[TrainStation] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        """What the contract trainers wrote of themselves."""
        return self.folder / "journal"

    def start_worker(self, kind: str = "train", slots: int = 1) -> WorkerHandle:
        """A new worker process; it registers within a few seconds."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        words = ["-m", "worker", kind, "--slots", str(slots)]
        handle = WorkerHandle(self.launch(words, self.environment(), log), log)
        self.workers.append(handle)
        return handle

    def launch(
        self, words: Sequence[str], env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes] | Fork:
        """`python` with these words, in the folder of the service; it ends with this process."""
        if self.is_forked:
            return fork_server().start(words, env=env, folder=self.folder, log=log)
        with log.open("ab") as stream:
            return subprocess.Popen(
                [*ends_with_parent("KILL"), sys.executable, *words],
                env=env,
                cwd=self.folder,
                stdout=stream,
                stderr=stream,
            )

    def station(self, command: Sequence[str] = (), **settings: float) -> TrainStation:
        """A train station of this process, without messages: whoever drains it works."""
        given: dict[str, Any] = {**WORKER_TIMES, **settings}
        trainer_command = tuple(command) or (sys.executable, str(CONTRACT))
        worker_settings = WorkerSettings(
            work_dir=self.folder / "work", trainer_command=trainer_command, **given
        )
        context = Context(
            database=self.database,
            objects=self.objects,
            doorbell=self.doorbell,
            store_settings=self.settings,
            settings=worker_settings,
            worker_id=new_id("wrk"),
            slots=1,
            stopping=threading.Event(),
        )
        self.stations.append(TrainStation(context))
        return self.stations[-1]

    def work_off(self, job_id: str, station: TrainStation, seconds: float = 40.0) -> Job:
        """The job once this thread has worked it to an end, over all its attempts."""
        deadline = time.monotonic() + seconds
        while (job := self.job(job_id)).status not in TERMINAL:
            station.drain()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{job.status}, {job.exit_cause}, {job.log_tail}")
            time.sleep(0.02)
        return job

    def environment(self) -> dict[str, str]:
        """What a worker of this service is started with."""
        store = self.settings
        variables: dict[str, Any] = {
            "DATA_DIR": store.data_dir,
            "DATABASE_URL": store.database_url and store.database_url.get_secret_value(),
            "REDIS_URL": store.redis_url and store.redis_url.get_secret_value(),
            "WORK_DIR": self.folder / "work",
            "TRAINER_COMMAND": json.dumps([sys.executable, str(CONTRACT)]),
            **{name.upper(): getattr(store, name) for name in TIMES},
            **{name.upper(): value for name, value in WORKER_TIMES.items()},
        }
        given = {f"SHORTFT_{name}": str(value) for name, value in variables.items() if value}
        return child_environment({**given, **self.extra_env})

    def create(self, *, updates: int = 20, **labels: Label) -> str:
        """A queued job for the contract trainer, and its wake-up; returns its id."""
        texts = {name: str(value) for name, value in labels.items()}
        new = jobs.NewJob(spec=spec_of(updates, {"journal": str(self.journal), **texts}))
        job = self.database.transact(lambda session: jobs.create(session, new))
        self.doorbell.ring(Queue.TRAIN)
        return job.id

    def job(self, job_id: str) -> Job:
        """The row as it is now."""
        with self.database.read() as session:
            return jobs.get(session, job_id)

    def events(self, job_id: str) -> tuple[JobEvent, ...]:
        """The whole history of a job."""
        with self.database.read() as session:
            return events.after(session, job_id, limit=100_000)

    def lines(self) -> list[Line]:
        """The journal so far."""
        if not self.journal.exists():
            return []
        split = [line.split() for line in self.journal.read_text().splitlines()]
        return [Line(w, j, int(t), int(p), int(u)) for w, j, t, p, u in split]

    def until(self, is_so: Callable[[], bool], seconds: float = 60.0) -> None:
        """Returns when it is so; raises TimeoutError with the workers' logs."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                raise TimeoutError("\n".join(w.log.read_text()[-4000:] for w in self.workers))
            time.sleep(0.05)

    def until_status(
        self, job_id: str, statuses: Collection[JobStatus] = TERMINAL, seconds: float = 60.0
    ) -> Job:
        """The job, once its status is one of these."""
        self.until(lambda: self.job(job_id).status in statuses, seconds)
        return self.job(job_id)

    def until_update(self, job_id: str, update: int, token: int = 1) -> Line:
        """The journal's line, once an attempt has made this update."""

        def found() -> list[Line]:
            mine = [line for line in self.lines() if (line.job_id, line.token) == (job_id, token)]
            return [line for line in mine if line.what == "update" and line.update >= update]

        self.until(lambda: bool(found()))
        return found()[0]

    def stop_workers(self) -> None:
        """Ends every worker in order, frozen ones too."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.thaw()
                worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(15.0)
            except subprocess.TimeoutExpired:
                worker.kill()

    def close(self) -> None:
        """Ends everything."""
        self.stop_workers()
        for station in self.stations:
            station.stop()
        self.doorbell.close()
        self.database.close()


@contextmanager
def service(stack: StoreSettings, folder: Path, **times: float) -> Iterator[Service]:
    """A service on a stack, at scaled times; its workers end with it."""
    settings = stack.model_copy(update={**TIMES, **times})
    running = Service(
        settings=settings,
        folder=folder,
        database=open_database(settings.database_address()),
        objects=open_objects(settings.storage_address()),
        doorbell=open_doorbell(settings, role="api"),
    )
    try:
        yield running
    finally:
        running.close()


@contextmanager
def forked_service(stack: StoreSettings, folder: Path, **times: float) -> Iterator[Service]:
    """The same with processes that need no time to import: for tests that start many."""
    with service(stack, folder, **times) as running:
        running.is_forked = True
        yield running


def spec_of(updates: int, labels: dict[str, str]) -> AlignSpec:
    """A resolved specification that the contract trainer understands."""
    content = {
        "base_model": {"name": "shapes"},
        "method": {"type": "draft_k", "updates": updates},
        "rewards": [{"name": "symmetry"}],
        "prompts": {"name": "shapes-train"},
        "metadata": labels,
    }
    return catalog.resolve(AlignSpec.model_validate(content))
