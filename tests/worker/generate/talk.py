"""A real generation process, and how to ask it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shortft_core.spec.generation import GenerationSpec, ScoreSpec
from worker.generate.messages import REPORTS, Answer, Batch, Done, Ready, Request, Working
from worker.pipes import Child
from worker.settings import child_environment

PATIENCE_SECONDS = 100.0


@contextmanager
def generator(folder: Path, *arguments: str) -> Iterator[Child]:
    """A process that is ready, and gone at the end."""
    command = [sys.executable, "-m", "worker.children.generator", *arguments]
    child = Child.spawn(command, env=child_environment(), cwd=folder)
    try:
        assert isinstance(hear(child), Ready)
        yield child
    finally:
        child.kill()


def hear(child: Child) -> Ready | Working | Answer | Done:
    """The next message."""
    message = child.receive(PATIENCE_SECONDS)
    assert message is not None, child.log_tail()
    return REPORTS.validate_python(message)


def answers(child: Child, batch: Batch) -> dict[str, Answer]:
    """What the process says of each request of a batch."""
    assert child.send(batch.written().model_dump(mode="json"))
    found: dict[str, Answer] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        report = hear(child)
        if isinstance(report, Answer):
            assert report.request not in found
            found[report.request] = report
        elif isinstance(report, Done):
            return found
    raise AssertionError("no answer in time")


def ask(
    child: Child,
    folder: Path,
    *specs: GenerationSpec | ScoreSpec,
    adapters: Sequence[Path] = (),
    pictures: Sequence[Path] = (),
) -> list[Answer]:
    """The answers to one batch, in the order of the requests; all use the same files."""
    requests = tuple(
        Request(id=f"gen_{n}", spec=spec, adapters=tuple(adapters), pictures=tuple(pictures))
        for n, spec in enumerate(specs)
    )
    found = answers(child, Batch(id="bat_1", requests=requests, folder=folder))
    return [found[request.id] for request in requests]
