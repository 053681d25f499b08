"""What a run reports while it works: typed facts that turn into one JSON envelope.

Polling, server-sent events, webhooks and the command line carry the same envelope; the service
adds `id`, `seq` and `job_id` to it. Type names are those of the HTTP interface.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shortft_core.errors import ArtifactError

Level = Literal["info", "warn", "error"]
_COMMON: Final = ("type", "created_at", "level", "message")
# No database holds a NUL, and UTF-8 has no form for half a surrogate pair.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_NUMBERS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _now() -> datetime:
    return datetime.now(tz=UTC)


class _Fact(BaseModel):
    """Frozen, closed, and JSON even where a number is not finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="strings", use_attribute_docstrings=True
    )


class _Report(_Fact):
    """What every event carries."""

    created_at: AwareDatetime = Field(default_factory=_now)
    level: Level = "info"
    message: str = ""
    """One sentence for people."""


class RunStarted(_Report):
    """Weights are loaded and the first update begins."""

    type: Literal["job.started"] = "job.started"
    spec_sha256: str
    updates: int | None
    """Updates of the whole job; None until a length in seconds is turned into updates."""
    first_update: int = 1
    """Above 1 after a resume."""


class PhaseStarted(_Report):
    """The run turned to something else, such as a download or the next stage."""

    type: Literal["job.phase"] = "job.phase"
    phase: str
    stage: int | None = None


class StepMetrics(_Report):
    """One optimizer update."""

    type: Literal["job.metrics"] = "job.metrics"
    update: int
    loss: float
    reward: float
    """Mean weighted sum of the terms."""
    terms: Mapping[str, float]
    """Mean of each reward term in raw units, before its weight."""
    grad_norms: Mapping[int, float]
    """Gradient norm of each trained branch before clipping."""
    learning_rate: float
    seconds: float
    """Wall time of this update."""
    evaluations_with_gradient: float
    """Denoiser calls made per image that carried gradient."""
    evaluations_without_gradient: float
    images_seen: int
    """Images trained on since the job began."""
    updates: int | None = None
    """Length of the job; None while `method.seconds` is being turned into updates."""
    stage: int = 1
    """Stage of a progressive method, from 1."""
    stages: int = 1
    shares: Mapping[str, float] = Field(default_factory=dict)
    """Share of each term in the sum of absolute weighted terms: which reward drives the tuning."""
    peak_memory_bytes: int = 0
    """Most memory in use so far: of the accelerator, or resident on a CPU."""
    wall_seconds: float = 0.0
    """Wall time since the job began, evaluations included."""
    statistics: Mapping[str, float] = Field(default_factory=dict)
    """What else the method measured, such as its leash."""


class DistilMetrics(_Report):
    """Updates of a distillation since the last such event."""

    type: Literal["job.distil_metrics"] = "job.distil_metrics"
    update: int
    updates: int
    errors: Mapping[str, float]
    """Jump `t -> s` -> mean squared error, that of a naive jump being 1."""


class Score(_Fact):
    """One judge on one set of images, in raw units."""

    mean: float
    std: float


class Diversity(_Fact):
    """How much the images of a panel differ: their standard deviation, averaged over pixels."""

    base: float
    tuned: float


class EvaluationDone(_Report):
    """Tuned beside base on the same held-out prompts and seeds."""

    type: Literal["job.eval"] = "job.eval"
    update: int
    images: int
    base: Mapping[str, Score]
    """Judge -> score of the base model's images."""
    tuned: Mapping[str, Score]
    is_best: bool = False
    """Whether no earlier checkpoint is preferred."""
    diversity: Diversity | None = None
    """None where the trainer did not measure it."""


class CheckpointSaved(_Report):
    """A state that the run can resume from, or an adapter at that update."""

    type: Literal["job.checkpoint"] = "job.checkpoint"
    update: int
    key: str
    """Key in the artifact store."""
    sha256: str
    size_bytes: int


class Picture(_Fact):
    """One stored image and what the judges say of it."""

    key: str
    scores: Mapping[str, float]


class SamplePair(_Fact):
    """Base and tuned image of the same prompt and seed."""

    prompt: str
    seed: int
    base: Picture
    tuned: Picture


class SamplesReady(_Report):
    """Pictures of an evaluation can be looked at."""

    type: Literal["job.sample"] = "job.sample"
    update: int
    pairs: tuple[SamplePair, ...]


class AlertRaised(_Report):
    """The guard found that the reward is being hacked, or that the numbers broke."""

    type: Literal["job.alert"] = "job.alert"
    level: Level = "warn"
    kind: Literal["reward_divergence", "diversity_collapse", "nan"]
    update: int
    action: Literal["none", "pause", "stop"]
    judge: str | None = None
    value: float | None = None
    limit: float | None = None


class LogLine(_Report):
    """Something worth a line that no other event says."""

    type: Literal["job.log"] = "job.log"


class RunFinished(_Report):
    """The run's last word; the service makes a state change of it once the result is stored."""

    type: Literal["job.finished"] = "job.finished"
    outcome: Literal["completed", "stopped", "failed"]
    updates: int
    """Updates made in all."""
    best_update: int | None = None
    seconds: float
    evaluations_with_gradient: int = 0
    """Denoiser calls that carried gradient, summed over all training images."""
    evaluations_without_gradient: int = 0
    images_seen: int = 0
    peak_memory_bytes: int = 0


Event = (
    RunStarted
    | PhaseStarted
    | StepMetrics
    | DistilMetrics
    | EvaluationDone
    | CheckpointSaved
    | SamplesReady
    | AlertRaised
    | LogLine
    | RunFinished
)
EventSink = Callable[[Event], None]
_ADAPTER: Final[TypeAdapter[Event]] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def to_envelope(event: Event) -> dict[str, Any]:
    """The JSON form: common fields on top, the event's own ones under `data`."""
    fields = _plain(event.model_dump(mode="json"))
    common = {name: fields.pop(name) for name in _COMMON}
    return {"object": "event", **common, "data": fields}


def _plain(value: Any) -> Any:
    """JSON that every reader takes: no half characters, and numbers that are not finite as text."""
    match value:
        case str():
            return _UNSTORABLE.sub("\ufffd", value)
        case float() if not math.isfinite(value):
            return _NUMBERS[str(value)]
        case dict():
            return {_plain(str(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def from_envelope(envelope: Mapping[str, Any]) -> Event:
    """The event of an envelope, whatever the service added; raises ArtifactError for others."""
    try:
        common = {name: envelope[name] for name in _COMMON}
        return _ADAPTER.validate_python({**common, **envelope["data"]})
    except (KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(f"not an event envelope: {error}") from error


def fan_out(*sinks: EventSink) -> EventSink:
    """A sink that hands each event to all sinks in order."""

    def emit(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return emit


def jsonl_sink(path: Path) -> EventSink:
    """A sink that appends one envelope a line, dropping the torn line a crash left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    _drop_torn_line(path)

    def emit(event: Event) -> None:
        line = json.dumps(to_envelope(event), ensure_ascii=False, allow_nan=False) + "\n"
        with path.open("ab") as file:
            file.write(line.encode())

    return emit


def read_jsonl(path: Path) -> Iterator[Event]:
    """Events of a `jsonl_sink` file, without a last line that is still being written."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield from_envelope(_parse_line(line, number))


def _parse_line(line: bytes, number: int) -> Mapping[str, Any]:
    try:
        parsed: Mapping[str, Any] = json.loads(line)
    except ValueError as error:
        raise ArtifactError(f"line {number} of the event file is not JSON") from error
    return parsed


def _drop_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
