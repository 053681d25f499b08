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
from shortft_client.errors import ServerFaultError, UnreachableError
from shortft_client.retries import Retries
from shortft_client.settings import client_settings
from shortft_client.waiting import Patience, Waiting
from shortft_client.wire import options

_Waited = TypeVar("_Waited", Job, Generation)


class Jobs(groups.JobEndpoints, Blocking):
    """Jobs, and what they leave."""

    def stream(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """A job's events as they come, until its last one; connects again where it is cut off."""
        return self.connection.stream(job_id, after)

    def wait(self, job_id: str, *, timeout_seconds: float | None = None) -> Job:
        """The finished job, however it ended; a restart of the service does not matter.

        Raises NotInTimeError, and UnreachableError or ServerFaultError when patience is over.
        """
        waiting = Waiting(timeout_seconds, self.connection.patience_seconds)
        return _wait(lambda: self.connection.send(jobs.retrieve(job_id)), waiting)

    def download(self, job_id: str, artifact: Artifact, target: Path) -> Path:
        """Fetches an artifact into a file, resuming and verifying; raises ArtifactError."""
        return self.connection.download(job_id, artifact, target)


class Generations(groups.GenerationEndpoints, Blocking):
    """Requests for images, made or running."""

    def wait(self, generation_id: str, *, timeout_seconds: float | None = None) -> Generation:
        """The finished generation, however it ended; raises NotInTimeError."""
        look = pictures.retrieve(generation_id)
        waiting = Waiting(timeout_seconds, self.connection.patience_seconds)
        return _wait(lambda: self.connection.send(look), waiting)


class Images(groups.ImageEndpoints, Blocking):
    """Pictures."""


class Rewards(groups.RewardEndpoints, Blocking):
    """Rewards, and what they say of pictures."""


class PromptSets(groups.PromptSetEndpoints, Blocking):
    """Prompt sets."""


class Adapters(groups.AdapterEndpoints, Blocking):
    """Adapters."""


class ApiKeys(groups.ApiKeyEndpoints, Blocking):
    """API keys of the project, for a key with the scope `admin`."""


class Client(groups.ServiceEndpoints, Blocking):
    """The service at `server`; address and key default to the settings.

    An empty key is none at all. A service that restarts is waited for `patience_seconds` long.
    """

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
        key = client_settings().key() if api_key is None else api_key
        http = httpx2.Client(**options(self.server, key))
        super().__init__(Connection(http, retries or Retries(), patience_seconds))
        self.jobs = Jobs(self.connection)
        self.generations = Generations(self.connection)
        self.images = Images(self.connection)
        self.rewards = Rewards(self.connection)
        self.prompt_sets = PromptSets(self.connection)
        self.adapters = Adapters(self.connection)
        self.api_keys = ApiKeys(self.connection)

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


def _wait(look: Callable[[], _Waited], waiting: Waiting) -> _Waited:
    while True:
        try:
            found = look()
        except (UnreachableError, ServerFaultError) as error:
            pause = waiting.after_silence(error)
        else:
            if found.is_finished:
                return found
            pause = waiting.after(found)
        time.sleep(pause)
