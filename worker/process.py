"""One worker process: its row, its heartbeat, its sweeper, and the station that does the work.

Work is started by a message, by the sweeper and once at the start; all of them only say "look". So
a broker that is down delays work by a sweep, and stops nothing.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, Protocol

from sqlalchemy.orm import Session

from store import workers
from store.broker import Queue
from store.doorbell import Doorbell, open_doorbell
from store.engine import Database, open_database
from store.errors import NotFoundError
from store.ids import new_id
from store.objects import ObjectStore, open_objects
from store.settings import StoreSettings
from store.sweeper import Sweeper
from store.workers import NewWorker
from worker.devices import describe_device
from worker.settings import DeviceSettings, WorkerSettings

_LOG: Final = logging.getLogger(__name__)
Kind = Literal["train", "generate", "default"]
KINDS: Final[dict[Kind, str]] = {
    "train": "worker.train.supervisor:build",
    "generate": "worker.generate.supervisor:build",
    "default": "worker.chores:build",
}
"""Kind of worker -> module and function that builds its station, loaded only there."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a station works with."""

    database: Database
    objects: ObjectStore
    doorbell: Doorbell
    store_settings: StoreSettings
    settings: WorkerSettings
    worker_id: str
    slots: int
    """How many pieces of work may be done at once."""
    stopping: threading.Event
    """Set when the worker shuts down: claim nothing more, and end what runs in order."""


class Station(Protocol):
    """What a kind of worker does."""

    def drain(self) -> None:
        """Claims and works until nothing is due or the worker stops; several threads may call it.

        Returns at once where all slots are taken.
        """
        ...

    def stop(self) -> None:
        """Ends what runs, in order, within `grace_seconds`; called once `stopping` is set."""
        ...


class WorkerProcess:
    """Everything of a worker but the messages; `start` and `stop` are called once each."""

    def __init__(
        self, kind: Kind, slots: int, store_settings: StoreSettings, settings: WorkerSettings
    ) -> None:
        self.kind: Kind = kind
        self.stopping = threading.Event()
        self._introduced = threading.Event()
        """Set once it has tried to write its row, from which a claim copies the device."""
        self._drained = threading.Event()
        self._database = open_database(store_settings.database_address())
        self._doorbell = open_doorbell(store_settings, role="worker")
        self._context = Context(
            database=self._database,
            objects=open_objects(store_settings.storage_address()),
            doorbell=self._doorbell,
            store_settings=store_settings,
            settings=settings,
            worker_id=new_id("wrk"),
            slots=slots,
            stopping=self.stopping,
        )
        self.station = _build(kind)(self._context)
        self._sweeper = Sweeper(self._database, self._doorbell, store_settings, self._on_due)
        self._draining = 0
        self._counting = threading.Lock()
        self._looks = [threading.Event() for _ in range(slots)]
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._drains = [
            threading.Thread(target=self._drain, args=[look], name="drain") for look in self._looks
        ]

    def start(self) -> None:
        """Begins to beat, to sweep and to look for work; needs no broker."""
        for thread in (self._beating, *self._drains):
            thread.start()
        self._sweeper.start()

    def look(self) -> None:
        """Lets the process's own threads look for work."""
        for look in self._looks:
            look.set()

    def drain(self) -> None:
        """Works until nothing is due; what a message makes a thread of Celery do."""
        # A message may come before the first beat.
        self._introduced.wait()
        with self._counting:
            self._draining += 1
        try:
            self.station.drain()
        except Exception:  # noqa: BLE001  whatever it was, the lease brings the work back
            _LOG.exception("the work was broken off")
        finally:
            with self._counting:
                self._draining -= 1

    def stop(self) -> None:
        """Ends the work in order, and says goodbye."""
        self.stopping.set()
        self._sweeper.stop()
        self.station.stop()
        self.look()
        for thread in self._drains:
            if thread.is_alive():
                thread.join()
        self._drained.set()
        if self._beating.is_alive():
            self._beating.join()
            self._say_alive("stopped")
        self._doorbell.close()
        self._database.close()

    def _on_due(self, queues: frozenset[Queue]) -> None:
        if Queue(self.kind) in queues:
            self.look()

    def _drain(self, look: threading.Event) -> None:
        while not self.stopping.is_set():
            look.wait()
            look.clear()
            self.drain()

    def _beat(self) -> None:
        self._say_alive("ready")
        self._introduced.set()
        self.look()
        seconds = self._context.store_settings.heartbeat_seconds
        while not self.stopping.wait(seconds):
            self._say_alive("busy" if self._draining else "ready")
        self._say_alive("draining")
        while not self._drained.wait(seconds):
            self._say_alive("draining")

    def _say_alive(self, state: workers.State) -> None:
        try:
            self._database.transact(lambda session: self._write_row(session, state))
        except Exception:  # noqa: BLE001  a heartbeat that comes late is better than none for ever
            _LOG.exception("no heartbeat")

    def _write_row(self, session: Session, state: workers.State) -> None:
        try:
            workers.beat(session, self._context.worker_id, state)
        except NotFoundError:
            workers.register(session, self._describe())

    def _describe(self) -> NewWorker:
        return NewWorker(
            id=self._context.worker_id,
            kind=self.kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            slots=self._context.slots,
            device=describe_device(DeviceSettings()),
            version=version("shortft"),
            boot_id=_boot_id(),
        )


def _build(kind: Kind) -> Callable[[Context], Station]:
    module, _, name = KINDS[kind].partition(":")
    build: Callable[[Context], Station] = getattr(importlib.import_module(module), name)
    return build


def _boot_id() -> str | None:
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.is_file() else None
