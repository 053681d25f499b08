"""What the service answers: frozen objects that keep what later versions add.

Statuses and codes are plain text on purpose: their sets are open.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shortft_core.errors import ArtifactError
from shortft_core.events import Event, from_envelope

FINISHED: Final = frozenset({"succeeded", "failed", "cancelled"})
"""Statuses that nothing leaves."""


class Answer(BaseModel):
    """Frozen, and open to fields of later versions."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)


class Progress(Answer):
    """How far a job is."""

    percent: float | None = None
    updates_completed: int = 0
    updates_total: int | None = None
    seconds_elapsed: float | None = None
    seconds_remaining: float | None = None


class Place(Answer):
    """Where a job waits, and for what."""

    position: int | None = None
    reason: str | None = None
    estimated_start_at: AwareDatetime | None = None


class Failure(Answer):
    """Why something failed."""

    code: str
    message: str
    retryable: bool = False


class Artifact(Answer):
    """One file of a result."""

    id: str
    kind: str
    filename: str
    size_bytes: int
    sha256: str


class Result(Answer):
    """What a finished job has left."""

    adapter_id: str | None = None
    artifacts: tuple[Artifact, ...] = ()


class Job(Answer):
    """One job: what was asked for, where it stands, and what it has left."""

    id: str
    status: str
    phase: str | None = None
    kind: str = "align"
    name: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    base_model: str = ""
    method: str | None = None
    rewards: tuple[str, ...] = ()
    """Names of what is maximised."""
    prompt_set: str | None = None
    """Name in the catalog or id of an upload; None where the specification holds the prompts."""
    eval_prompt_set: str | None = None
    seed: int | None = None
    spec: dict[str, Any]
    """What was asked for, with every default filled in."""
    progress: Progress = Progress()
    queue: Place = Place()
    attempt: int = 0
    max_attempts: int | None = None
    priority: int = 0
    created_at: AwareDatetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    latest_metrics: dict[str, Any] | None = None
    best_update: int | None = None
    result: Result | None = None
    error: Failure | None = None
    allowed_actions: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in FINISHED


class Validation(Answer):
    """A job that would be accepted, and what it would cost."""

    valid: bool
    spec: dict[str, Any]
    estimate: dict[str, Any] | None = None


class JobEvent(Answer):
    """One line of a job's history."""

    id: str
    seq: int
    """Its number, from 1 and without gaps."""
    type: str
    job_id: str
    created_at: AwareDatetime
    level: str = "info"
    message: str = ""
    data: dict[str, Any] = Field(default_factory=dict)

    @cached_property
    def event(self) -> Event | None:
        """The typed event; None for a type, or a form of it, that this version does not know."""
        try:
            return from_envelope(self.model_dump())
        except ArtifactError:
            return None


class LogLine(Answer):
    """One line that a trainer wrote."""

    number: int
    text: str
    attempt: int | None = None
    created_at: datetime | None = None


class Checkpoint(Answer):
    """A state of a job that can be gone on from."""

    update: int
    sha256: str | None = None
    size_bytes: int | None = None


class Sample(Answer):
    """One stored picture of an evaluation."""

    id: str
    update: int
    kind: str
    prompt: str
    seed: int
    scores: dict[str, float] = Field(default_factory=dict)


class Image(Answer):
    """One picture of a generation."""

    id: str
    pair_index: int = 0
    """Equal for a tuned picture and the base model's beside it."""
    kind: str = "tuned"
    prompt: str
    seed: int | None = None
    width: int
    height: int
    media_type: str
    scores: dict[str, float] = Field(default_factory=dict)
    sha256: str | None = None


class Generation(Answer):
    """A request for images or scores: where it stands, and what it yielded."""

    id: str
    status: str
    kind: str = "generate"
    request: dict[str, Any] = Field(default_factory=dict)
    images: tuple[Image, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = Field(default_factory=dict)
    error: Failure | None = None
    created_at: AwareDatetime

    @property
    def is_finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in FINISHED


class PromptSet(Answer):
    """A set of prompts, bundled or uploaded."""

    id: str | None = None
    name: str


class Prompt(Answer):
    """One prompt of a set."""

    index: int
    """From 0."""
    text: str


class Prompts(Answer):
    """A part of a set's prompts."""

    data: tuple[Prompt, ...]
    total: int
    has_more: bool
    """Whether there are prompts behind these."""


class Adapter(Answer):
    """What a finished job yields."""

    id: str
    job_id: str | None = None


class Named(Answer):
    """One entry of a catalog: a base model, a reward or a method."""

    name: str
    summary: str = ""


class Worker(Answer):
    """A worker as the service sees it."""

    id: str
    kind: str
    state: str
    device: str | None = None


class ApiKey(Answer):
    """An API key; the key itself is nowhere."""

    id: str
    name: str
    last_characters: str
    scopes: tuple[str, ...] = ()
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None


class CreatedApiKey(ApiKey):
    """A new key, which is shown this once."""

    key: str = Field(repr=False)
