"""Each protection is taken away alone, in a copy of the project: a test has to notice."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text

from store.engine import open_database
from tests.servers.forks import fork_server
from worker.settings import child_environment

ROOT: Final = Path(__file__).parents[2]
IN_COPY: Final = Path(__file__).with_name("pytest_in_copy.py")
_COPIED: Final = ("shortft_core", "store", "worker", "migrations", "tests")
_LINKED: Final = ("pyproject.toml", "shapes", "shortft_core/bundled")


@dataclass(frozen=True)
class Mutation:
    """One protection, and the test that is there for it."""

    name: str
    file: str
    protected: str
    """What stands in the file now."""
    bare: str
    """The same without the protection."""
    check: str
    """Node of the test that has to fail; `::` and all."""


MUTATIONS: Final = (
    Mutation(
        "token in the writes of events",
        "store/events.py",
        ".where(Job.id == lease.row_id, Job.lease_token == lease.token, Job.status.in_(HELD))",
        ".where(Job.id == lease.row_id, Job.status.in_(HELD))",
        "tests/store/test_leases.py::test_an_old_token_can_write_nothing[sqlite-_loses_to_another]",
    ),
    Mutation(
        "token in the transitions of a worker",
        "store/transitions.py",
        "if job is None or job.lease_token != lease.token or job.status not in HELD:",
        "if job is None or job.status not in HELD:",
        "tests/store/test_leases.py::test_an_old_token_can_write_nothing[sqlite-_loses_to_another]",
    ),
    Mutation(
        "token in the renewal",
        "store/leases.py",
        "        Job.lease_token == lease.token,\n",
        "",
        "tests/store/test_leases.py::test_an_old_token_can_write_nothing[sqlite-_loses_to_another]",
    ),
    Mutation(
        "fsync before the rename",
        "shortft_core/artifacts.py",
        "            os.fsync(file.fileno())\n",
        "",
        "tests/shortft_core/test_artifacts.py"
        "::test_bytes_are_synchronised_before_they_get_their_name",
    ),
    Mutation(
        "self-fence of the trainer",
        "worker/children/lifeline.py",
        "        if age >= FENCE_SHARE * self._lease_seconds:\n"
        "            self.ending = ExitCode.FENCED\n",
        "",
        "tests/worker/children/test_lifeline.py"
        "::test_without_renewal_it_stops_itself_and_then_leaves",
    ),
    Mutation(
        "BEGIN IMMEDIATE",
        "store/engine.py",
        '"BEGIN DEFERRED" if read_only else "BEGIN IMMEDIATE"',
        '"BEGIN DEFERRED"',
        "tests/faults/test_mutations.py::test_a_writer_of_sqlite_has_the_lock_from_the_beginning",
    ),
    Mutation(
        "status and SKIP LOCKED in the claim",
        "store/leases.py",
        "        .with_for_update(skip_locked=True)\n    )\n    return (\n        update(Job)\n"
        "        .where(Job.id == due.scalar_subquery(), Job.status == JobStatus.QUEUED)\n",
        "    )\n    return (\n        update(Job)\n"
        "        .where(Job.id == due.scalar_subquery())\n",
        "tests/store/test_concurrency.py::test_no_job_is_claimed_twice[postgresql]",
    ),
    Mutation(
        "event number in the same UPDATE",
        "store/events.py",
        ".values(event_seq=Job.event_seq + len(entries))",
        ".values(event_seq=session.get_one(Job, lease.row_id).event_seq + len(entries))",
        "tests/store/test_events.py::test_numbers_become_visible_in_their_order[postgresql]",
    ),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is, with large files by links."""
    folder = tmp_path_factory.mktemp("project")
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("bundled"))
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)
    return folder


@contextmanager
def mutated(copy: Path, mutation: Mutation) -> Iterator[None]:
    """The copy without one protection."""
    file = copy / mutation.file
    code = file.read_text(encoding="utf-8")
    assert code.count(mutation.protected) == 1, f"{mutation.file} has changed: {mutation.name}"
    file.write_text(code.replace(mutation.protected, mutation.bare), encoding="utf-8")
    yield
    file.write_text(code, encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """How pytest ended, and what it said."""

    code: int
    said: str


def run(copy: Path, *checks: str) -> Run:
    """What pytest says of these tests in the copy."""
    # Only the plugins that the project's settings name: others take long to load.
    plugins = ["-p", "pytest_timeout", "-p", "pytest_socket", "-p", "no:cacheprovider"]
    words = [str(IN_COPY), str(copy), "-q", "--show-capture=no", *plugins, *checks]
    log = copy / "pytest.log"
    log.unlink(missing_ok=True)
    env = child_environment({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    code = fork_server().start(words, env=env, folder=copy, log=log).wait(100.0)
    return Run(code, log.read_text())


def test_with_all_protections_every_check_is_green(copy: Path) -> None:
    checks = sorted({mutation.check for mutation in MUTATIONS})
    found = run(copy, *checks)
    assert found.code == 0, found.said
    assert f"{len(checks)} passed" in found.said


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_without_one_protection_its_check_is_red(copy: Path, mutation: Mutation) -> None:
    with mutated(copy, mutation):
        found = run(copy, mutation.check)
    assert found.code == 1, found.said
    assert "1 failed" in found.said


def test_a_writer_of_sqlite_has_the_lock_from_the_beginning(sqlite_template: Path) -> None:
    database = open_database(f"sqlite:///{sqlite_template}")
    with closing(sqlite3.connect(sqlite_template, timeout=0.0, isolation_level=None)) as other:
        with database.write() as session:
            session.execute(text("SELECT 1"))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
    database.close()
