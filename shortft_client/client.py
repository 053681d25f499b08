"""The client for callers that wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar, Unpack

import httpx2

from shortft_client import groups
from shortft_client.answers import Artifact, Generation, Job, JobEvent
from shortft_client.calls import jobs, pictures
from shortft_client.calls.pictures import GenerationFields
from shortft_client.connection import Connection
from shortft_client.endpoint import Blocking
from shortft_client.errors import NotInTimeError
from shortft_client.retries import Retries
from shortft_client.settings import client_settings
from shortft_client.waiting import Patience
from shortft_client.wire import options

_Waited = TypeVar("_Waited", Job, Generation)


class Jobs(groups.JobEndpoints, Blocking):
    """Jobs, and what they leave."""

    def stream(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """A job's events as they come, until its last one; connects again where it is cut off."""
        return self.connection.stream(job_id, after)

    def wait(self, job_id: str, *, timeout_seconds: float | None = None) -> Job:
        """The finished job, however it ended; raises NotInTimeError."""
        return _wait(lambda: self.connection.send(jobs.retrieve(job_id)), timeout_seconds)

    def download(self, job_id: str, artifact: Artifact, target: Path) -> Path:
        """Fetches an artifact into a file, resuming and verifying; raises ArtifactError."""
        return self.connection.download(job_id, artifact, target)


class Generations(groups.GenerationEndpoints, Blocking):
    """Requests for images, made or running."""

    def wait(self, generation_id: str, *, timeout_seconds: float | None = None) -> Generation:
        """The finished generation, however it ended; raises NotInTimeError."""
        look = pictures.retrieve(generation_id)
        return _wait(lambda: self.connection.send(look), timeout_seconds)


class Images(groups.ImageEndpoints, Blocking):
    """Pictures."""


class Rewards(groups.RewardEndpoints, Blocking):
    """Rewards, and what they say of pictures."""


class PromptSets(groups.PromptSetEndpoints, Blocking):
    """Prompt sets."""


class Adapters(groups.AdapterEndpoints, Blocking):
    """Adapters."""


class Client(groups.ServiceEndpoints, Blocking):
    """The service at `server`; address and key default to the settings."""

    def __init__(
        self,
        server: str | None = None,
        *,
        api_key: str | None = None,
        retries: Retries | None = None,
        patience_seconds: float = 300.0,
    ) -> None:
        self.server = server or client_settings().server
        """Address of the service."""
        http = httpx2.Client(**options(self.server, api_key or client_settings().key()))
        super().__init__(Connection(http, retries or Retries(), patience_seconds))
        self.jobs = Jobs(self.connection)
        self.generations = Generations(self.connection)
        self.images = Images(self.connection)
        self.rewards = Rewards(self.connection)
        self.prompt_sets = PromptSets(self.connection)
        self.adapters = Adapters(self.connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        self.connection.http.close()

    def generate(
        self, *, timeout_seconds: float = 300.0, **fields: Unpack[GenerationFields]
    ) -> Generation:
        """The finished generation, however it ended; raises NotInTimeError."""
        asked = pictures.generate(wait_seconds=timeout_seconds, **fields)
        patience = Patience(timeout_seconds)
        made = self.connection.send(asked)
        if made.is_finished:
            return made
        return self.generations.wait(made.id, timeout_seconds=patience.left_seconds())


def _wait(look: Callable[[], _Waited], timeout_seconds: float | None) -> _Waited:
    patience = Patience(timeout_seconds)
    while not (found := look()).is_finished:
        pause = patience.pause_seconds()
        if pause is None:
            raise NotInTimeError(found.id, found.status, timeout_seconds or 0.0)
        time.sleep(pause)
    return found
