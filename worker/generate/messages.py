"""What a generate worker and its child say to each other, one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from shortft_core.spec import Source
from shortft_core.spec.common import Spec
from shortft_core.spec.generation import AnyGeneration


class Request(Spec):
    """A generation, and where its files lie on this machine."""

    id: str
    spec: AnyGeneration
    adapters: tuple[Path, ...] = ()
    """Folder of each adapter of the request."""
    pictures: tuple[Path, ...] = ()
    """File of each picture to score."""


class Batch(Spec):
    """Requests that run through the model together where they can."""

    id: str
    requests: tuple[Request, ...]
    folder: Path
    """Where the pictures are written."""

    def written(self) -> BatchFile:
        """The order for it, whose file lies in its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "batch.json"
        path.write_text(self.model_dump_json(), encoding="utf-8")
        return BatchFile(path=path)


class BatchFile(Spec):
    """A batch to work on, in a file: a pipe to a child that hangs takes 64 KB and then blocks."""

    type: Literal["batch"] = "batch"
    path: Path

    def read(self) -> Batch:
        """The batch; raises OSError or ValidationError for a file that holds none."""
        return Batch.model_validate_json(self.path.read_bytes())


class Preload(Spec):
    """A base model that will be asked for."""

    type: Literal["preload"] = "preload"
    base_model: Source


class Ready(Spec):
    """The child has loaded its libraries."""

    type: Literal["ready"] = "ready"
    device: str


class Working(Spec):
    """The child is alive, and goes on."""

    type: Literal["working"] = "working"
    message: str


class Picture(Spec):
    """One picture of an answer."""

    position: int
    """Place in the answer, from 0; the base model's picture stands before the tuned one."""
    kind: Literal["base", "tuned"] = "tuned"
    file: Path
    """What was written, or the picture that was scored."""
    prompt: str
    seed: int | None = None
    """None for a picture that came to be scored."""
    width: int
    height: int
    media_type: str
    scores: dict[str, float] = Field(default_factory=dict)
    """Reward -> raw score."""


class Problem(Spec):
    """Why a request has no pictures."""

    code: str
    message: str
    field: str | None = None
    """What of the request is at fault, if anything of it is."""


class Answer(Spec):
    """What became of one request of a batch."""

    type: Literal["answer"] = "answer"
    batch: str
    request: str
    pictures: tuple[Picture, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    """Of the whole batch: `load`, `generate`, `score`, `encode`."""
    problem: Problem | None = None


class Done(Spec):
    """Every request of a batch was answered."""

    type: Literal["done"] = "done"
    batch: str


Order = Annotated[BatchFile | Preload, Field(discriminator="type")]
Report = Annotated[Ready | Working | Answer | Done, Field(discriminator="type")]
ORDERS: Final[TypeAdapter[BatchFile | Preload]] = TypeAdapter(Order)
REPORTS: Final[TypeAdapter[Ready | Working | Answer | Done]] = TypeAdapter(Report)
