"""A generation process that hangs, and what its worker may still do with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.worker.generate.samples import asked
from worker.generate.messages import Batch, Request
from worker.generate.warm_child import WarmChild
from worker.settings import WorkerSettings

PIPE_BYTES = 64 * 1024


@pytest.mark.timeout(60)
def test_a_process_that_hangs_takes_a_large_batch_and_is_killed(tmp_path: Path) -> None:
    prompts = tuple(f"{number} {'a red circle ' * 80}" for number in range(16))
    requests = tuple(Request(id=f"gen_{number}", spec=asked(*prompts)) for number in range(8))
    batch = Batch(id="bat_1", requests=requests, folder=tmp_path / "batch")
    assert len(batch.model_dump_json()) > 2 * PIPE_BYTES
    child = WarmChild(WorkerSettings(work_dir=tmp_path), {})
    pid = child.start().pid
    os.kill(pid, signal.SIGSTOP)
    looks = iter([False, True])
    assert list(child.answers(batch, lambda: next(looks))) == []
    assert child.pid is None
    assert not Path(f"/proc/{pid}").exists()
    assert batch.written().read() == batch
