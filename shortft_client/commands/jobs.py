"""`shortft jobs …`: submit jobs to a service, look at them, steer them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from shortft_client.answers import Artifact, Job
from shortft_client.client import Client
from shortft_client.commands.watching import watch_job
from shortft_core.errors import UserError
from shortft_core.spec.read import read_content

app = typer.Typer(help="Jobs of a service.", no_args_is_help=True)
Server = Annotated[
    str | None, typer.Option(help="Address of the service; default: SHORTFT_SERVER.")
]
JobId = Annotated[str, typer.Argument(help="Id of the job, `job_…`.")]
_LOOK_SECONDS: Final = 1.0
_FAILED: Final = 1
_ID_WIDTH: Final = 30


@app.command("submit")
def submit(
    spec: Annotated[Path, typer.Argument(help="Job specification, YAML or JSON.")],
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show its progress until it ends.")
    ] = False,
    priority: Annotated[int | None, typer.Option(help="Higher is claimed first.")] = None,
    server: Server = None,
) -> None:
    """Queues a job."""
    with Client(server) as client:
        job = client.jobs.create(read_content(spec), priority=priority)
        _print(f"{job.id} {job.status}")
        if watch:
            _watch(client, job.id)


@app.command("list")
def list_jobs(
    status: Annotated[
        str | None, typer.Option(help="Comma-separated, such as `queued,running`.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    server: Server = None,
) -> None:
    """Lists jobs, the newest first."""
    whole_id = Column("id", min_width=_ID_WIDTH)
    table = Table(whole_id, "name", "status", "phase", "progress", "created")
    with Client(server) as client:
        found = client.jobs.list(status=status) if status else client.jobs.list()
        for _, job in zip(range(limit), found, strict=False):
            made = f"{job.created_at:%Y-%m-%d %H:%M}"
            table.add_row(
                job.id, job.name or "", job.status, job.phase or "", progress_of(job), made
            )
    Console().print(table)


@app.command("show")
def show(
    job_id: JobId,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As the service says it.")] = False,
    server: Server = None,
) -> None:
    """Shows one job."""
    with Client(server) as client:
        job = client.jobs.retrieve(job_id)
    if as_json:
        _print(json.dumps(job.model_dump(mode="json"), indent=2))
        return
    for name, value in _facts(job).items():
        _print(f"{name}: {value}")


@app.command("watch")
def watch_command(job_id: JobId, server: Server = None) -> None:
    """Shows the progress of a job until it ends; a restart of the service does not matter."""
    with Client(server) as client:
        _watch(client, job_id)


@app.command("cancel")
def cancel(job_id: JobId, server: Server = None) -> None:
    """Ends a job for good; what it has stored stays."""
    with Client(server) as client:
        _say(client.jobs.cancel(job_id))


@app.command("pause")
def pause(job_id: JobId, server: Server = None) -> None:
    """Saves a job and frees its worker."""
    with Client(server) as client:
        _say(client.jobs.pause(job_id))


@app.command("resume")
def resume(job_id: JobId, server: Server = None) -> None:
    """Queues a paused job again."""
    with Client(server) as client:
        _say(client.jobs.resume(job_id))


@app.command("retry")
def retry(job_id: JobId, server: Server = None) -> None:
    """Makes a new job that goes on from the last checkpoint of a failed or cancelled one."""
    with Client(server) as client:
        _say(client.jobs.retry(job_id))


@app.command("rerun")
def rerun(job_id: JobId, server: Server = None) -> None:
    """Makes a new job of the same specification."""
    with Client(server) as client:
        _say(client.jobs.rerun(job_id))


@app.command("logs")
def logs(
    job_id: JobId,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends.")] = False,
    tail: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 200,
    server: Server = None,
) -> None:
    """Prints what the trainer wrote."""
    with Client(server) as client:
        number = None
        while True:
            # Asked before the lines are read: the last ones are written before it ends.
            ended = not follow or client.jobs.retrieve(job_id).is_finished
            lines = client.jobs.logs(job_id, after=number, tail=tail if number is None else None)
            for line in lines:
                number = line.number
                _print(line.text)
            if ended and not lines:
                return
            if not lines:
                time.sleep(_LOOK_SECONDS)


@app.command("download")
def download(
    job_id: JobId,
    out: Annotated[Path | None, typer.Option(help="Folder; default: the job's id.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Kinds of artifacts; default: all of them.")
    ] = None,
    server: Server = None,
) -> None:
    """Fetches the files of a result, resuming what was cut off and verifying every byte."""
    with Client(server) as client:
        found = client.jobs.artifacts(job_id)
        for artifact in _of_kinds(found, kind):
            target = (out or Path(job_id)) / safe_name(artifact)
            _print(str(client.jobs.download(job_id, artifact, target)))


def safe_name(artifact: Artifact) -> str:
    """The artifact's file name without a folder, whatever the service calls it."""
    name = Path(artifact.filename.replace("\\", "/")).name
    return name if name not in {"", ".", ".."} else artifact.id


def progress_of(job: Job) -> str:
    """How far it is, in a few words."""
    progress = job.progress
    if progress.updates_total is None:
        return f"{progress.updates_completed} updates"
    return f"{progress.updates_completed}/{progress.updates_total}"


def _of_kinds(found: list[Artifact], kinds: list[str] | None) -> list[Artifact]:
    if not kinds:
        return found
    known = {artifact.kind for artifact in found}
    for kind in kinds:
        if kind not in known:
            raise UserError("kind", f"the job has no {kind}", f"It has {', '.join(sorted(known))}")
    return [artifact for artifact in found if artifact.kind in kinds]


def _facts(job: Job) -> dict[str, Any]:
    facts = {
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "phase": job.phase,
        "progress": progress_of(job),
        "waits for": job.queue.reason,
        "attempt": job.attempt,
        "created": job.created_at,
        "finished": job.finished_at,
        "best update": job.best_update,
        "error": job.error and f"{job.error.code}: {job.error.message}",
        "adapter": job.result and job.result.adapter_id,
        "may be": ", ".join(job.allowed_actions),
    }
    return {name: value for name, value in facts.items() if value not in {None, ""}}


def _watch(client: Client, job_id: str) -> None:
    job = watch_job(client, job_id, Console())
    if job.status != "succeeded":
        raise typer.Exit(_FAILED)


def _say(job: Job) -> None:
    _print(f"{job.id} {job.status}")


def _print(text: str) -> None:
    Console().print(text, soft_wrap=True, highlight=False, markup=False)
