"""`shortft demo`: the service on this machine, one job, and what it changed, all over HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

from shortft_client.answers import Generation, Image, Job
from shortft_client.client import Client
from shortft_client.commands.generate import finished
from shortft_client.commands.watching import adapter_of, watch_job
from shortft_client.errors import ClientError
from shortft_client.settings import apart_from_services
from shortft_core.artifacts import LocalStore
from shortft_core.errors import UserError
from shortft_core.events import EvaluationDone, Picture, SamplePair, SamplesReady
from shortft_core.spec.generation import MOST_IMAGES
from shortft_core.spec.read import parse_spec, read_content

_READY: Final = "ready: "
_PATIENCE_SECONDS: Final = 600.0
_SEED: Final = 1000
_MARK: Final = {"demo": "1"}
"""Label of the jobs that are the demo's own."""
_NO_KEY: Final = ""
_KEPT: Final = ("adapter", "report")
"""Kinds of artifacts that are fetched."""


class NotServedError(ClientError):
    """The service of the demo ended before it was ready; what it said is on the terminal."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"the service in {self.folder} did not start"


def demo(
    folder: Annotated[Path, typer.Option(help="Folder of the service and of the results.")] = Path(
        "runs/demo"
    ),
    spec: Annotated[Path | None, typer.Option(help="Another job than the bundled one.")] = None,
) -> None:
    """Starts the service, tunes the bundled model over HTTP, and draws before and after."""
    console = Console()
    content = _content(spec)
    with (
        _stopped_in_order(),
        serving(folder, console) as address,
        Client(address, api_key=_NO_KEY) as client,
    ):
        job = _tuned(client, content, console)
        evaluation = last_evaluation(client, job)
        pictures = _before_and_after(client, job)
        path = folder / "before_after.png"
        draw(client, pictures, job, evaluation, path)
        found = {artifact.kind: artifact for artifact in client.jobs.artifacts(job.id)}
        for kind in _KEPT:
            kept = client.jobs.download(job.id, found[kind], folder / found[kind].filename)
            _say(console, f"{kind}: {kept}")
        _say(console, f"picture: {path}")
        _say(console, f"service: {address}, its page: {address}/docs")
        if console.is_terminal:
            _say(console, "Ctrl-C ends it.")
            _until_interrupted()


@contextmanager
def serving(folder: Path, console: Console) -> Iterator[str]:
    """The address of a service that runs while the block does; raises NotServedError.

    Everything it keeps is in the folder, whatever service the environment describes.
    """
    command = [sys.executable, "-m", "shortft_core.cli", "serve", "--port", "0"]
    process = subprocess.Popen(  # noqa: S603  # our own command
        [*command, "--host", "127.0.0.1", "--data-dir", str(folder), "--until-input-ends"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=apart_from_services(),
    )
    with process:
        try:
            address = _address(process.stdout, console)
            if address is None:
                raise NotServedError(folder)
            yield address
        finally:
            _say(console, "stopping the service")
            _stop(process)


def last_evaluation(client: Client, job: Job) -> EvaluationDone:
    """The newest evaluation of a job; raises ClientError if it made none."""
    found = [line.event for line in client.jobs.stream(job.id)]
    evaluations = [event for event in found if isinstance(event, EvaluationDone)]
    if not evaluations:
        raise ClientError(f"{job.id} made no evaluation")
    return evaluations[-1]


def draw(
    client: Client, made: Generation, job: Job, evaluation: EvaluationDone, path: Path
) -> None:
    """Saves the pairs of a generation, and a sheet of them with the held-out figures above."""
    from shortft_core.contact_sheet import contact_sheet

    store = LocalStore(path.with_name("pictures"))
    for image in made.images:
        store.write(image.id, client.images.read(image.id))
    pairs = SamplesReady(update=evaluation.update, pairs=tuple(_pairs(made, weights_of(job))))
    contact_sheet(pairs, evaluation, store).save(path)


def weights_of(job: Job) -> Mapping[str, float]:
    """Reward -> its weight in the target."""
    return {reward["name"]: reward["weight"] for reward in job.spec["rewards"]}


def _content(spec: Path | None) -> dict[str, Any]:
    """The job to run; raises UserError for one whose result could not be drawn in the end."""
    if spec is None:
        with as_file(files("shortft_core") / "bundled" / "demo.yaml") as path:
            return read_content(path)
    content = read_content(spec)
    source = parse_spec(content).evaluation.prompts
    inline = None if source is None else source.inline
    if inline is None or not 1 <= len(inline) <= MOST_IMAGES:
        problem = f"the demo draws them, and needs 1 to {MOST_IMAGES} inline"
        remedy = "List them in evaluation.prompts.inline, or use `shortft jobs submit`"
        raise UserError("evaluation.prompts", problem, remedy)
    return content


def _tuned(client: Client, content: Mapping[str, Any], console: Console) -> Job:
    """The finished job; what an earlier demo left unfinished makes room for it."""
    unfinished = ["queued", "preparing", "running", "paused"]
    for left in client.jobs.list(status=unfinished, metadata=_MARK):
        client.jobs.cancel(left.id)
    marked = {**content.get("metadata", {}), **_MARK}
    job = client.jobs.create({"name": "demo", **content, "metadata": marked})
    _say(console, f"job: {job.id}")
    return watch_job(client, job.id, console)


def _before_and_after(client: Client, job: Job) -> Generation:
    """Pictures of the held-out prompts, by the adapter and by the base model."""
    prompts = job.spec["evaluation"]["prompts"]["inline"]
    made = client.generate(
        prompts=prompts,
        seeds=list(range(_SEED, _SEED + len(prompts))),
        adapters=[{"id": adapter_of(job)}],
        compare_base=True,
        score_with=job.spec["rewards"],
        timeout_seconds=_PATIENCE_SECONDS,
    )
    return finished(made)


def _pairs(made: Generation, weights: Mapping[str, float]) -> Iterator[SamplePair]:
    by_place = {(image.pair_index, image.kind): image for image in made.images}
    for place in sorted({image.pair_index for image in made.images}):
        base, tuned = by_place[place, "base"], by_place[place, "tuned"]
        yield SamplePair(
            prompt=tuned.prompt,
            seed=tuned.seed or 0,
            base=_picture(base, weights),
            tuned=_picture(tuned, weights),
        )


def _picture(image: Image, weights: Mapping[str, float]) -> Picture:
    target = sum(weight * image.scores[name] for name, weight in weights.items())
    return Picture(key=image.id, scores={**image.scores, "target": target})


def _address(output: IO[str] | None, console: Console) -> str | None:
    """Shows what the service says until it is ready; None if it ends before."""
    for line in output or ():
        _say(console, line.rstrip())
        if line.startswith(_READY):
            return line.removeprefix(_READY).partition(",")[0].strip()
    return None


def _stop(process: subprocess.Popen[str]) -> None:
    """Closes its input, which ends it, and waits until it has ended."""
    # Its last lines would fill the pipe otherwise, were there enough of them.
    process.communicate()


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that what it started is stopped too."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _until_interrupted() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
