"""Whatever users and workers do at once, a job's history stays one that the table allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, delete, update

from shortft_core.events import LogLine, RunStarted
from store import events, generation_leases, generations, jobs, leases, results
from store.attempts import Ending, Limits
from store.engine import Database, open_database
from store.errors import InvalidStateError, LeaseLostError
from store.leases import Report
from store.models import Job
from store.states import HELD, TERMINAL, TRANSITIONS, JobStatus
from store.transitions import Lease

if TYPE_CHECKING:
    from tests.store.conftest import Bench

STATUS_AFTER: Final = {
    "job.created": JobStatus.QUEUED,
    "job.started": JobStatus.RUNNING,
    "job.resumed": JobStatus.QUEUED,
    "job.retrying": JobStatus.QUEUED,
    **{f"job.{status}": status for status in JobStatus if status is not JobStatus.RUNNING},
}
LIMITS: Final = Limits(crashes=2, lost_leases=2, backoff_seconds=0.0)
STARTED: Final = RunStarted(spec_sha256="0" * 64, updates=1)


@dataclass
class Party:
    """A user and a worker in one thread, on an engine of their own."""

    database: Database
    job_id: str
    name: str
    lease: Lease = field(default_factory=lambda: Lease("job_none", 0, "", 0))
    tokens: list[int] = field(default_factory=list)

    def play(self, script: list[str]) -> None:
        """Does everything of the script, one after the other."""
        for action in script:
            self._do(action)

    def _do(self, action: str) -> None:
        """Tries an action; that it comes too late is no fault."""
        steps: dict[str, Callable[[], object]] = {
            "claim": self._claim,
            "expire": self._expire,
            "cancel": lambda: self._with(lambda s: jobs.cancel(s, self.job_id)),
            "pause": lambda: self._with(lambda s: jobs.pause(s, self.job_id)),
            "resume": lambda: self._with(lambda s: jobs.resume(s, self.job_id)),
            "sweep": lambda: self._with(lambda s: leases.sweep(s, LIMITS)),
            "renew": lambda: self._with(lambda s: leases.renew(s, self.lease)),
            "start": lambda: self._with(lambda s: leases.start(s, self.lease, STARTED)),
            "log": lambda: self._with(
                lambda s: events.append(s, self.lease, [LogLine(), LogLine()])
            ),
            "succeed": lambda: self._with(lambda s: results.succeed(s, self.lease, [])),
            "fail": lambda: self._with(lambda s: leases.fail(s, self.lease, Report())),
            "stop": lambda: self._release(Ending.STOPPED),
            "crash": lambda: self._release(Ending.CRASHED),
        }
        try:
            steps[action]()
        except (InvalidStateError, LeaseLostError):
            return

    def _with(self, work: Callable[..., object]) -> None:
        self.database.transact(work)

    def _release(self, ending: Ending) -> None:
        self._with(lambda s: leases.release(s, self.lease, ending, limits=LIMITS))

    def _claim(self) -> None:
        claim = self.database.transact(lambda s: leases.claim(s, self.name, ["default"]))
        if claim is not None:
            self.lease = claim.lease
            self.tokens.append(claim.lease.token)

    def _expire(self) -> None:
        past = datetime.now(tz=UTC) - timedelta(hours=1)
        statement = update(Job).where(Job.lease_expires_at.is_not(None))
        self._with(lambda s: s.execute(statement.values(lease_expires_at=past)))


ACTIONS = st.lists(
    st.sampled_from(
        [
            *["claim", "claim", "claim", "start", "start", "log", "renew", "crash", "stop"],
            *["succeed", "fail", "expire", "sweep", "cancel", "pause", "resume"],
        ]
    ),
    min_size=4,
    max_size=12,
)


@contextmanager
def _engines(url: URL, count: int) -> Iterator[list[Database]]:
    opened = [open_database(url) for _ in range(count)]
    try:
        yield opened
    finally:
        for database in opened:
            database.close()


def _at_once(*works: Callable[[], None]) -> None:
    """Runs all of it in threads that begin together; raises what any of them raised."""
    faults: list[BaseException] = []
    together = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        together.wait(timeout=10)
        try:
            work()
        except BaseException as error:  # noqa: BLE001  raised again by the test's own thread
            faults.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if faults:
        raise faults[0]


def _check_history(bench: Bench, job_id: str, tokens: list[int]) -> None:
    types = bench.types(job_id)  # gapless: 1, 2, 3, …
    statuses = [STATUS_AFTER[kind] for kind in types if kind != "job.log"]
    for before, after in pairwise(statuses):
        possible = {to for (at, _), to in TRANSITIONS.items() if at is before}
        assert after in possible, types
    job = bench.get(job_id)
    assert job.status is statuses[-1]
    assert job.event_seq == len(types)
    assert (job.lease_owner is not None) == (job.status in HELD)
    if job.status in TERMINAL:
        assert types[-1] in events.ENDINGS
    assert types.count("job.preparing") == len(tokens) == len(set(tokens))


@settings(
    max_examples=12,
    # Threads meet differently each time, so a smaller example would prove nothing.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(scripts=st.tuples(ACTIONS, ACTIONS, ACTIONS))
def test_concurrent_verbs_keep_the_history_legal(
    bench: Bench, url: URL, scripts: tuple[list[str], ...]
) -> None:
    with bench.database.write() as session:
        session.execute(delete(Job))
    job = bench.create()
    with _engines(url, 2) as engines:
        parties = [
            Party(engines[number % 2], job.id, f"wrk_{number}") for number in range(len(scripts))
        ]
        _at_once(
            *(partial(party.play, script) for party, script in zip(parties, scripts, strict=True))
        )
    _check_history(bench, job.id, [token for party in parties for token in party.tokens])


def test_no_job_is_claimed_twice(bench: Bench, url: URL) -> None:
    made = {bench.create().id for _ in range(40)}
    claimed: list[str] = []

    def drain(database: Database, name: str) -> None:
        while True:
            claim = database.transact(lambda s: leases.claim(s, name, ["default"]))
            if claim is None:
                return
            claimed.append(claim.job.id)

    with _engines(url, 2) as engines:
        _at_once(*(partial(drain, engines[number % 2], f"wrk_{number}") for number in range(4)))
    assert len(claimed) == 40
    assert set(claimed) == made


def test_no_generation_is_claimed_twice(bench: Bench, url: URL) -> None:
    for number in range(40):
        new = generations.NewGeneration(request={}, batch_key=str(number % 3))
        with bench.database.write() as session:
            generations.create(session, new)
    claimed: list[str] = []

    def drain(database: Database, name: str) -> None:
        while batch := database.transact(lambda s: generation_leases.claim_batch(s, name, most=4)):
            assert len({row.generation.batch_key for row in batch}) == 1
            claimed.extend(row.generation.id for row in batch)

    with _engines(url, 2) as engines:
        _at_once(*(partial(drain, engines[number % 2], f"wrk_{number}") for number in range(4)))
    assert len(claimed) == len(set(claimed))
    # A row that another worker has locked is passed over, so one more look may be needed.
    drain(bench.database, "wrk_last")
    assert len(claimed) == 40


def test_of_a_cancel_and_a_result_exactly_one_wins(bench: Bench, url: URL) -> None:
    expected = {"cancel": JobStatus.CANCELLING, "result": JobStatus.SUCCEEDED}
    with _engines(url, 2) as engines:
        for _ in range(8):
            job = bench.create()
            won = _race(engines, job.id, bench.claim().lease)
            assert len(won) == 1
            assert bench.get(job.id).status is expected[won[0]]


def _race(engines: list[Database], job_id: str, lease: Lease) -> list[str]:
    won: list[str] = []

    def attempt(number: int, name: str, work: Callable[..., object]) -> None:
        try:
            engines[number].transact(work)
        except InvalidStateError:
            return
        won.append(name)

    _at_once(
        lambda: attempt(0, "cancel", lambda s: jobs.cancel(s, job_id)),
        lambda: attempt(1, "result", lambda s: results.succeed(s, lease, [])),
    )
    return won


def test_many_sweepers_end_each_attempt_once(bench: Bench, url: URL) -> None:
    made = [bench.create() for _ in range(10)]
    for job in made:
        bench.claim()
        bench.expire(Job, job.id)
    swept: list[str] = []

    def sweep(database: Database) -> None:
        swept.extend(job.id for job in database.transact(leases.sweep))

    with _engines(url, 2) as engines:
        _at_once(*(partial(sweep, engines[number % 2]) for number in range(4)))
    assert sorted(swept) == sorted(job.id for job in made)
    for job in made:
        assert bench.types(job.id) == ["job.created", "job.preparing", "job.retrying"]
        assert bench.get(job.id).lost_leases == 1
