"""A disk that is full or cannot be written: nothing torn is used, and work goes on when it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from shortft_core.errors import ArtifactError
from store.settings import StoreSettings
from store.states import JobStatus
from tests.faults import invariants
from tests.faults.harness import Service, service

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
MOUNT: Final = shutil.which("mount") or ""
UMOUNT: Final = shutil.which("umount") or ""
_BLOCK: Final = bytes(4096)


@dataclass(frozen=True)
class Disk:
    """A small file system of its own."""

    folder: Path

    def fill(self) -> None:
        """Takes every block that is free."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            try:
                while file.write(_BLOCK):
                    pass
            except OSError:
                return

    def free(self) -> None:
        """Gives them back."""
        (self.folder / "filler").unlink()

    def lock(self) -> None:
        """Refuses every write from now on."""
        _mount("-o", "remount,ro", self.folder)

    def unlock(self) -> None:
        """Takes writes again."""
        _mount("-o", "remount,rw", self.folder)


def _mount(*words: str | Path) -> None:
    subprocess.run([MOUNT, *words], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Eight megabytes, twice what SQLite's log may take; skips where nothing may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not MOUNT:
        pytest.skip("only an administrator may mount a small disk")
    try:
        _mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", folder)
    except subprocess.CalledProcessError:
        pytest.skip("this machine lets nobody mount a small disk")
    yield Disk(folder)
    subprocess.run([UMOUNT, "-l", folder], check=True)


@contextmanager
def working(running: Service, job_id: str) -> Iterator[threading.Thread]:
    """A station of this process that works on a job until it is over."""
    station = running.station()
    worker = threading.Thread(target=lambda: running.work_off(job_id, station, 60.0), daemon=True)
    worker.start()
    yield worker
    worker.join(60)
    assert not worker.is_alive()


@pytest.mark.parametrize(
    ("fault", "end"), [(Disk.fill, Disk.free), (Disk.lock, Disk.unlock)], ids=["full", "read-only"]
)
def test_objects_that_cannot_be_written_are_stored_later(
    stack: StoreSettings,
    tmp_path: Path,
    disk: Disk,
    fault: Callable[[Disk], None],
    end: Callable[[Disk], None],
) -> None:
    settings = stack.model_copy(update={"storage_url": disk.folder.as_uri()})
    with service(settings, tmp_path) as running:
        job_id = running.create(updates=12, step_seconds=0.05)
        with working(running, job_id):
            running.until(lambda: running.job(job_id).resumable_update == 5)
            fault(disk)
            # Training ends; its checkpoint at 10 and its result do not fit.
            running.until(lambda: running.lines()[-1].what == "stop")
            running.until(lambda: _warnings(running, job_id) != [])
            assert running.job(job_id).status is JobStatus.RUNNING
            end(disk)
        job = running.job(job_id)
        assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
        invariants.check(running, job_id, updates=12)
        [first, *_] = _warnings(running, job_id)
        assert first.startswith("checkpoint 10: ")
        assert "the job goes on" in first


def _warnings(running: Service, job_id: str) -> list[str]:
    return [event.message for event in running.events(job_id) if event.level == "warn"]


def test_a_full_disk_under_the_rows_costs_nothing_that_was_stored(
    stack: StoreSettings, tmp_path: Path, disk: Disk
) -> None:
    shutil.copytree(stack.data_dir, disk.folder / "data")
    settings = stack.model_copy(update={"data_dir": disk.folder / "data"})
    with service(settings, tmp_path) as running:
        job_id = running.create(updates=150, step_seconds=0.05)
        with working(running, job_id):
            running.until(lambda: running.job(job_id).resumable_update >= 5)
            disk.fill()
            # Without renewals, the trainer stops itself.
            first = running.lines()[0].pid
            running.until(lambda: not invariants.alive({first}))
            with pytest.raises(OSError, match="No space left"):
                (disk.folder / "more").write_bytes(_BLOCK)
            (disk.folder / "more").unlink(missing_ok=True)
            disk.free()
        job = running.job(job_id)
        assert (job.status, job.crashes) == (JobStatus.SUCCEEDED, 0)
        invariants.check(running, job_id, updates=150)
        second = [line.update for line in running.lines() if line.what == "start"][1]
        assert second >= 5


def test_a_full_work_folder_fails_no_job(stack: StoreSettings, tmp_path: Path, disk: Disk) -> None:
    with service(stack, tmp_path) as running:
        (tmp_path / "work").symlink_to(disk.folder)
        job_id = running.create(updates=5)
        station = running.station()
        disk.fill()
        while (refused := running.job(job_id)).attempt < 5:
            assert refused.status is JobStatus.QUEUED, refused.error_message
            station.drain()
        assert "No space left" in str(refused.exit_cause)
        disk.free()
        job = running.work_off(job_id, station)
        assert (job.status, job.crashes) == (JobStatus.SUCCEEDED, 0)
        invariants.check(running, job_id, updates=5)


def test_torn_bytes_are_never_read(stack: StoreSettings, tmp_path: Path, disk: Disk) -> None:
    settings = stack.model_copy(update={"storage_url": disk.folder.as_uri()})
    with service(settings, tmp_path) as running:
        source = tmp_path / "large"
        source.write_bytes(b"x" * (16 << 20))
        before = running.objects.write("jobs/a/state", b"before")
        with pytest.raises(OSError, match="No space left"):
            running.objects.write_file("jobs/a/state", source)
        assert running.objects.read("jobs/a/state", sha256=before) == b"before"
        with pytest.raises(OSError, match="No space left"):
            running.objects.write_file("jobs/a/other", source)
        with pytest.raises(ArtifactError):
            running.objects.read("jobs/a/other")
        assert running.objects.list("jobs/") == ("jobs/a/state",)
