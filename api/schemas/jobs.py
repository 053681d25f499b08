"""The shape of a job in answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.schemas.common import Answer
from shortft_core.spec import AlignSpec, DistilSpec
from store.states import JobStatus, Verb

MOST_LABELS: Final = 16
LONGEST_LABEL: Final = 64
"""Characters of a label's name."""
LONGEST_LABEL_TEXT: Final = 512
_Key = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_LABEL, pattern=r"^[^\x00]*$")
]
_Text = Annotated[str, StringConstraints(max_length=LONGEST_LABEL_TEXT, pattern=r"^[^\x00]*$")]
Metadata = Annotated[
    dict[_Key, _Text], Field(max_length=MOST_LABELS, examples=[{"team": "vision"}])
]
"""The caller's own labels: 16 at most, names of 64 and texts of 512 characters."""
Priority = Annotated[int, Field(ge=-100, le=100)]
SPEC_EXAMPLE = {
    "base_model": {"name": "shapes"},
    "method": {"type": "shortft", "updates": 120},
    "rewards": [{"name": "symmetry"}],
    "prompts": {"name": "shapes-train"},
    "name": "mirror",
    "metadata": {"team": "vision"},
}
JOB_EXAMPLE: dict[str, Any] = {
    "object": "job",
    "id": "job_01m7z8fvf4fsavnj9sm1dvzfjw",
    "status": "queued",
    "phase": None,
    "kind": "align",
    "name": "mirror",
    "metadata": {"team": "vision"},
    "base_model": "shapes",
    "method": "shortft",
    "rewards": ["symmetry"],
    "prompt_set": "shapes-train",
    "eval_prompt_set": "shapes-eval",
    "seed": 0,
    "spec_sha256": "65b45e7b74938e54c6162a4bb6b1eab9609a2c5ca5c1249802ba078130effb1e",
    "progress": {
        "percent": 0.0,
        "updates_completed": 0,
        "updates_total": 120,
        "seconds_elapsed": None,
        "seconds_remaining": None,
        "updates_per_second": None,
        "estimate_available": False,
    },
    "queue": {"position": 0, "reason": "no_worker", "estimated_start_at": None},
    "attempt": 0,
    "max_attempts": 50,
    "priority": 0,
    "created_at": "2026-11-21T10:00:00Z",
    "started_at": None,
    "finished_at": None,
    "estimated_finish_at": None,
    "updated_at": "2026-11-21T10:00:00Z",
    "durations": {"queued_seconds": 4.0, "running_seconds": None, "total_seconds": 4.0},
    "latest_metrics": None,
    "best_update": None,
    "resumable_update": 0,
    "last_event": 1,
    "result": None,
    "error": None,
    "parent": None,
    "worker": None,
    "allowed_actions": ["cancel", "pause"],
    "urls": {
        "self": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw",
        "events": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/events",
        "stream": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/events/stream",
        "logs": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/logs",
        "metrics": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/metrics",
        "samples": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/samples",
        "checkpoints": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/checkpoints",
        "artifacts": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/artifacts",
        "report": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/report",
        "cancel": "/jobs/job_01m7z8fvf4fsavnj9sm1dvzfjw/cancel",
    },
    "spec": SPEC_EXAMPLE,
}


class Progress(Answer):
    """How far a job is."""

    percent: float | None
    """Share of the updates; None while their number is unknown."""
    updates_completed: int
    updates_total: int | None
    seconds_elapsed: float | None
    """Wall time of the work so far, without waiting."""
    seconds_remaining: float | None
    updates_per_second: float | None
    estimate_available: bool
    """Whether `seconds_remaining` is known."""


class Place(Answer):
    """Where a job waits, and for what."""

    position: int | None
    """Jobs that are claimed before it; None unless it is queued."""
    reason: str | None
    """`backing_off`, `no_worker`, `behind_others`, `workers_busy`, or `starting`."""
    estimated_start_at: datetime | None
    """None where it cannot be told."""


class Durations(Answer):
    """Wall times until now, or until the job was finished."""

    queued_seconds: float
    """Until its first start."""
    running_seconds: float | None
    """Since its first start."""
    total_seconds: float


class JobError(Answer):
    """Why a job failed."""

    code: str = Field(examples=["out_of_memory"])
    """Open enumeration: later versions add values."""
    message: str
    retryable: bool
    """Whether `retry` may help."""


class Parent(Answer):
    """The job that this one retries or reruns."""

    job_id: str
    update: int | None
    """Update of its checkpoint that this job goes on from; None from the start."""


class WorkerRef(Answer):
    """The worker that holds a job."""

    id: str
    gpu: str | None
    """What it computes on, as `/workers` says it: a GPU's model, or `cpu …`."""
    heartbeat_at: datetime | None


class ArtifactRef(Answer):
    """One file of a result."""

    id: str
    kind: str
    filename: str
    size_bytes: int
    sha256: str
    url: str


class Result(Answer):
    """What a finished job has left."""

    adapter_id: str | None
    """Give it to `/generate`."""
    artifacts: list[ArtifactRef]


class JobUrls(Answer):
    """Where the parts of a job are."""

    self: str
    events: str
    stream: str
    logs: str
    metrics: str
    samples: str
    checkpoints: str
    artifacts: str
    report: str
    cancel: str


class JobObject(Answer):
    """One job: what was asked for, where it stands, and what it has left."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    object: Literal["job"] = "job"
    id: str = Field(examples=["job_01kdy7v0x3e8m9q2s5t8w1z4b7"])
    status: JobStatus
    """Open enumeration; spelled `cancelled`, with two l."""
    phase: str | None
    """What a worker does with it just now."""
    kind: str
    name: str | None
    metadata: dict[str, str]
    base_model: str
    method: str | None
    """Type of the method; None for a distillation."""
    rewards: list[str]
    """Names of what is maximised; empty for a distillation."""
    prompt_set: str | None
    """Name in the catalog or id of an upload; None where the specification holds the prompts."""
    eval_prompt_set: str | None
    """The same of the held-out prompts; None also where they are a part of the others."""
    seed: int
    spec: dict[str, Any]
    """What was asked for, with every default filled in."""
    spec_sha256: str
    progress: Progress
    queue: Place
    attempt: int
    max_attempts: int
    """After these it is given up; earlier where crashes or lost workers come in a row."""
    priority: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    estimated_finish_at: datetime | None
    updated_at: datetime
    durations: Durations
    latest_metrics: dict[str, Any] | None
    best_update: int | None
    """Update of the preferred checkpoint."""
    resumable_update: int
    """Update of the newest checkpoint; 0 before the first."""
    last_event: int
    """Number of its last event."""
    result: Result | None
    error: JobError | None
    parent: Parent | None
    worker: WorkerRef | None
    allowed_actions: list[Verb]
    urls: JobUrls


class JobChange(BaseModel):
    """What of a job can be changed."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"priority": 10, "metadata": {"team": "vision"}}]},
    )

    metadata: Metadata | None = None
    """Replaces all labels."""
    priority: Priority | None = None
    """Higher is claimed first; only while the job is not finished."""

    @model_validator(mode="before")
    @classmethod
    def _changes_something(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and not content:
            raise ValueError("give metadata, priority or both")
        return content


class Evaluations(Answer):
    """Denoiser calls, a guided one counted once."""

    with_gradient: float
    without_gradient: float


class StageEvaluations(Answer):
    """What one image of a stage costs."""

    stage: int
    updates: int | None
    """None while the length of the job is given in seconds."""
    per_image: Evaluations


class Estimate(Answer):
    """What a job will cost."""

    is_exact: bool
    """False where the run itself decides: stage changes on a plateau, pools of prefixes."""
    stages: list[StageEvaluations]
    images: int | None
    """Images trained on."""
    total: Evaluations | None
    """Of all training images."""
    seconds: float | None
    """Of training alone, as asked for or by such jobs before; None where none was measured."""
    memory_bytes: int | None
    """Peak of such a job; None where none has been measured yet."""
    device: str | None
    """Where it was measured."""


class Validation(Answer):
    """A job that would be accepted."""

    object: Literal["validation"] = "validation"
    valid: Literal[True] = True
    spec: AlignSpec | DistilSpec
    """With every default filled in."""
    estimate: Estimate | None
    """None for a distillation."""
