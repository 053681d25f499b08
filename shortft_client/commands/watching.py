"""A job's event stream on a terminal, or as lines in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console

from shortft_client.answers import Job, JobEvent
from shortft_core.errors import UserError

if TYPE_CHECKING:
    from shortft_client.client import Client

_QUIET: Final = frozenset({"job.checkpoint", "job.sample", "job.finished"})
"""Events that a watcher needs no line for."""


def watch_job(client: Client, job_id: str, console: Console) -> Job:
    """Shows a job's history and then its progress, until it ends; returns the finished job."""
    from shortft_core.cli.progress import EventClock, LiveProgress

    clock = EventClock()
    with LiveProgress(console, clock) as progress:
        for line in client.jobs.stream(job_id):
            clock.note(line.created_at)
            if line.event is not None:
                progress.show(line.event)
            elif line.type not in _QUIET:
                console.print(describe(line), soft_wrap=True, highlight=False, markup=False)
    return client.jobs.wait(job_id)


def describe(line: JobEvent) -> str:
    """One line for an event that has no form of its own."""
    text = f"{line.created_at:%H:%M:%S} {line.type.removeprefix('job.')}"
    return f"{text}: {line.message}" if line.message else text


def adapter_of(job: Job) -> str:
    """The adapter of a finished job; raises UserError where it has none."""
    if job.result is None or job.result.adapter_id is None:
        because = job.error.message if job.error is not None else f"it is {job.status}"
        raise UserError(job.id, f"it has no adapter ({because})", "Look at `shortft jobs logs`")
    return job.result.adapter_id
