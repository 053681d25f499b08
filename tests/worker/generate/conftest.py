"""A generate station in the test's own process, on both stacks, with real children."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, select
from sqlalchemy.orm import selectinload

from shortft_core.spec.generation import GenerationSpec, ScoreSpec
from store import generations
from store.doorbell import open_doorbell
from store.engine import open_database
from store.generations import NewGeneration
from store.models import Generation
from store.objects import open_objects
from store.settings import StoreSettings
from store.states import GenerationStatus
from tests.servers.postgresql import copied_database
from worker.generate.supervisor import GenerateStation
from worker.generate.warm_child import WarmChild
from worker.process import Context
from worker.settings import WorkerSettings
from worker.slots import Slots

PATIENCE_SECONDS = 90.0
PROJECTS = ("ours", "theirs")


@dataclass
class Bench:
    """A station, its context, and the steps that most tests begin with."""

    context: Context
    station: GenerateStation
    is_shared: bool = False
    """Whether the process outlives the station."""
    _threads: list[threading.Thread] = field(default_factory=list)
    _gate: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, *specs: GenerationSpec | ScoreSpec) -> list[str]:
        """Queued requests of two callers in turn, which can be claimed together."""
        new = [
            NewGeneration(
                request=spec.model_dump(mode="json"),
                batch_key=spec.batch_key(),
                kind=spec.kind,
                project=PROJECTS[number % 2],
            )
            for number, spec in enumerate(specs)
        ]
        # Nobody looks meanwhile: a look that began earlier would see a part of them as due.
        with self._gate:
            return self.context.database.transact(
                lambda session: [generations.create(session, one).id for one in new]
            )

    def get(self, generation_id: str) -> Generation:
        """The row with its images as it is now."""
        with self.context.database.read() as session:
            found = session.scalars(
                select(Generation)
                .where(Generation.id == generation_id)
                .options(selectinload(Generation.images))
            )
            return found.one()

    def cancel(self, generation_id: str) -> None:
        """What a caller asks for."""
        self.context.database.transact(
            lambda session: generations.cancel(session, generation_id, PROJECTS[0])
        )

    def drain(self) -> threading.Thread:
        """Lets the station look for work in a thread, again and again until it stops."""
        thread = threading.Thread(target=self._drain)
        thread.start()
        self._threads.append(thread)
        return thread

    def _drain(self) -> None:
        while not self.context.stopping.is_set():
            with self._gate:
                self.station.drain()
            time.sleep(0.1)

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something that has to come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not come in time"
            time.sleep(0.05)

    def finished(self, *ids: str) -> list[Generation]:
        """The rows, once all have ended."""
        ended = {
            GenerationStatus.SUCCEEDED,
            GenerationStatus.FAILED,
            GenerationStatus.CANCELLED,
        }
        self.until(lambda: all(self.get(one).status in ended for one in ids))
        return [self.get(one) for one in ids]

    def is_running(self, generation_id: str) -> bool:
        """Whether a worker holds it."""
        return self.get(generation_id).status is GenerationStatus.RUNNING

    @property
    def child_pid(self) -> int:
        """The process of the only slot."""
        pid = self.station.children[0].pid
        assert pid is not None
        return pid

    def close(self) -> None:
        """Ends everything."""
        self.context.stopping.set()
        if self.is_shared:
            self.station.children.clear()
        self.station.stop()
        for thread in self._threads:
            thread.join()
        self.context.doorbell.close()
        self.context.database.close()


@contextmanager
def bench(
    stack: StoreSettings, folder: Path, shared: WarmChild | None = None, **settings: Any
) -> Iterator[Bench]:
    """A station with one slot, which may have its process from elsewhere."""
    context = Context(
        database=open_database(stack.database_address()),
        objects=open_objects(stack.storage_address()),
        doorbell=open_doorbell(stack, role="worker"),
        store_settings=stack,
        settings=WorkerSettings(work_dir=folder / "work", **settings),
        worker_id="wrk_test",
        slots=1,
        stopping=threading.Event(),
    )
    station = GenerateStation(context)
    if shared is not None:
        station.children[:] = [shared]
        station._slots = Slots(station.children)
    station.start()
    made = Bench(context, station, is_shared=shared is not None)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmChild]:
    """The process of both stacks: it knows of neither, and loads its libraries once."""
    child = WarmChild(WorkerSettings(work_dir=tmp_path_factory.mktemp("warm")), {})
    yield child
    child.close()


# SQLite comes last: the tests that kill and stop use it.
@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def running(
    request: pytest.FixtureRequest, warm: WarmChild, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """One station for all tests of a module; it renews often."""
    folder = tmp_path_factory.mktemp("service")
    settings = StoreSettings(data_dir=folder, lease_seconds=20.0, heartbeat_seconds=0.3)
    with ExitStack() as stack:
        if request.param == "sqlite":
            template: Path = request.getfixturevalue("sqlite_template")
            shutil.copyfile(template, folder / "shortft.db")
        else:
            server: URL = request.getfixturevalue("postgresql_server")
            url = stack.enter_context(copied_database(server))
            address = SecretStr(url.render_as_string(hide_password=False))
            settings = settings.model_copy(update={"database_url": address})
        made = stack.enter_context(bench(settings, folder, warm))
        made.drain()
        yield made


@pytest.fixture
def alone(sqlite_template: Path, tmp_path: Path) -> Callable[..., AbstractContextManager[Bench]]:
    """Makes a station of this test alone."""
    shutil.copyfile(sqlite_template, tmp_path / "shortft.db")
    settings = StoreSettings(data_dir=tmp_path)
    return lambda **changes: bench(settings, tmp_path, **changes)
