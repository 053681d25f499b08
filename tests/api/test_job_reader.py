from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from api import job_reader
from api.job_reader import JobReader
from shortft_core import catalog
from shortft_core.spec import AlignSpec
from store import jobs
from store.engine import Database, open_database
from store.errors import NotFoundError
from store.jobs import NewJob
from store.models import Job
from store.settings import StoreSettings
from tests.api.conftest import SPEC


@pytest.fixture
def database(stack: StoreSettings) -> Iterator[Database]:
    found = open_database(stack.database_address())
    yield found
    found.close()


def create(database: Database, *, project: str = "default", priority: int = 0) -> Job:
    spec = catalog.resolve(AlignSpec.model_validate(SPEC))
    new = NewJob(spec=spec, project=project, priority=priority)
    return database.transact(lambda session: jobs.create(session, new))


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each look was for."""
    looks: list[int] = []
    look = job_reader._look

    def counted(database: Database, job_ids: tuple[str, ...]) -> job_reader.Found:
        looks.append(len(job_ids))
        return look(database, job_ids)

    monkeypatch.setattr(job_reader, "_look", counted)
    return looks


def test_who_asks_together_shares_a_look(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = create(database), create(database, priority=5)
    looks = count_looks(monkeypatch)

    async def ask() -> list[tuple[str, int | None]]:
        reader = JobReader(database)
        asked = [reader.read(job.id, "default") for job in (first, second, first)]
        answers = await asyncio.gather(*asked)
        return [(job.id, around.positions.get(job.id)) for job, around in answers]

    assert asyncio.run(ask()) == [(first.id, 1), (second.id, 0), (first.id, 1)]
    assert looks == [2]


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_nobody_is_told_what_was_true_before_he_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(database)
    read = asyncio.Event()
    look = job_reader._look

    async def ask() -> list[str]:
        loop = asyncio.get_running_loop()

        def slow(of: Database, job_ids: tuple[str, ...]) -> job_reader.Found:
            found = look(of, job_ids)
            loop.call_soon_threadsafe(read.set)
            return found

        monkeypatch.setattr(job_reader, "_look", slow)
        reader = JobReader(database)
        before = asyncio.create_task(reader.read(job.id, "default"))
        await read.wait()
        # The first look is over, its answer not yet given.
        database.transact(lambda session: jobs.cancel(session, job.id))
        after = await reader.read(job.id, "default")
        return [(await before)[0].status, after[0].status]

    assert asyncio.run(ask()) == ["queued", "cancelled"]


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_jobs_of_others_and_of_nobody_are_not_found(database: Database) -> None:
    theirs = create(database, project="theirs")

    async def ask() -> list[object]:
        reader = JobReader(database)
        asked = [reader.read(job_id, "default") for job_id in (theirs.id, "job_none")]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(error) for error in asyncio.run(ask())] == [NotFoundError, NotFoundError]


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_fault_reaches_all_who_asked_and_the_next_look_is_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(database)

    async def ask() -> tuple[list[str], Job]:
        reader = JobReader(database)
        with monkeypatch.context() as broken:
            broken.setattr(job_reader, "_look", fail)
            asked = [reader.read(job.id, "default") for _ in range(3)]
            told = await asyncio.gather(*asked, return_exceptions=True)
        found, _ = await reader.read(job.id, "default")
        return list(map(str, told)), found

    def fail(*_: object) -> job_reader.Found:
        raise OSError("away")

    told, found = asyncio.run(ask())
    assert told == ["away"] * 3
    assert found.id == job.id


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_who_goes_away_disturbs_nobody(database: Database) -> None:
    job = create(database)

    async def ask() -> Job:
        reader = JobReader(database)
        gone = asyncio.create_task(reader.read(job.id, "default"))
        stays = asyncio.create_task(reader.read(job.id, "default"))
        await asyncio.sleep(0)
        gone.cancel()
        return (await stays)[0]

    assert asyncio.run(ask()).id == job.id


def test_a_slow_look_is_followed_by_a_longer_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, look, rests = create(database), job_reader._look, []

    def slow(database: Database, job_ids: tuple[str, ...]) -> job_reader.Found:
        time.sleep(0.1)
        return look(database, job_ids)

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    async def ask() -> None:
        reader = JobReader(database)
        await reader.read(job.id, "default")
        assert reader._reader is not None
        await reader._reader

    monkeypatch.setattr(job_reader, "_look", slow)
    monkeypatch.setattr("api.job_reader.asyncio.sleep", rest)
    asyncio.run(ask())
    assert [seconds >= 0.2 for seconds in rests] == [True]
