"""The client for callers that await."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar, Unpack

import httpx2

from shortft_client import groups
from shortft_client.answers import Artifact, Generation, Job, JobEvent
from shortft_client.async_connection import AsyncConnection
from shortft_client.calls import jobs, pictures
from shortft_client.calls.pictures import GenerationFields
from shortft_client.endpoint import Awaiting
from shortft_client.errors import ServerFaultError, UnreachableError
from shortft_client.retries import Retries
from shortft_client.settings import client_settings
from shortft_client.waiting import Patience, Waiting
from shortft_client.wire import options

_Waited = TypeVar("_Waited", Job, Generation)


class AsyncJobs(groups.JobEndpoints, Awaiting):
    """Jobs, and what they leave."""

    def stream(self, job_id: str, *, after: int = 0) -> AsyncIterator[JobEvent]:
        """A job's events as they come, until its last one; connects again where it is cut off."""
        return self.connection.stream(job_id, after)

    async def wait(self, job_id: str, *, timeout_seconds: float | None = None) -> Job:
        """The finished job, however it ended; a restart of the service does not matter.

        Raises NotInTimeError, and UnreachableError or ServerFaultError when patience is over.
        """
        waiting = Waiting(timeout_seconds, self.connection.patience_seconds)
        return await _wait(lambda: self.connection.send(jobs.retrieve(job_id)), waiting)

    async def download(self, job_id: str, artifact: Artifact, target: Path) -> Path:
        """Fetches an artifact into a file, resuming and verifying; raises ArtifactError."""
        return await self.connection.download(job_id, artifact, target)


class AsyncGenerations(groups.GenerationEndpoints, Awaiting):
    """Requests for images, made or running."""

    async def wait(self, generation_id: str, *, timeout_seconds: float | None = None) -> Generation:
        """The finished generation, however it ended; raises NotInTimeError."""
        look = pictures.retrieve(generation_id)
        waiting = Waiting(timeout_seconds, self.connection.patience_seconds)
        return await _wait(lambda: self.connection.send(look), waiting)


class AsyncImages(groups.ImageEndpoints, Awaiting):
    """Pictures."""


class AsyncRewards(groups.RewardEndpoints, Awaiting):
    """Rewards, and what they say of pictures."""


class AsyncPromptSets(groups.PromptSetEndpoints, Awaiting):
    """Prompt sets."""


class AsyncAdapters(groups.AdapterEndpoints, Awaiting):
    """Adapters."""


class AsyncApiKeys(groups.ApiKeyEndpoints, Awaiting):
    """API keys of the project, for a key with the scope `admin`."""


class AsyncClient(groups.ServiceEndpoints, Awaiting):
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
        http = httpx2.AsyncClient(**options(self.server, key))
        super().__init__(AsyncConnection(http, retries or Retries(), patience_seconds))
        self.jobs = AsyncJobs(self.connection)
        self.generations = AsyncGenerations(self.connection)
        self.images = AsyncImages(self.connection)
        self.rewards = AsyncRewards(self.connection)
        self.prompt_sets = AsyncPromptSets(self.connection)
        self.adapters = AsyncAdapters(self.connection)
        self.api_keys = AsyncApiKeys(self.connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all connections."""
        await self.connection.http.aclose()

    async def generate(
        self, *, timeout_seconds: float = 300.0, **fields: Unpack[GenerationFields]
    ) -> Generation:
        """The finished generation, however it ended; raises NotInTimeError."""
        asked = pictures.generate(wait_seconds=timeout_seconds, **fields)
        patience = Patience(timeout_seconds)
        made = await self.connection.send(asked)
        if made.is_finished:
            return made
        return await self.generations.wait(made.id, timeout_seconds=patience.left_seconds())


async def _wait(look: Callable[[], Awaitable[_Waited]], waiting: Waiting) -> _Waited:
    while True:
        try:
            found = await look()
        except (UnreachableError, ServerFaultError) as error:
            pause = waiting.after_silence(error)
        else:
            if found.is_finished:
                return found
            pause = waiting.after(found)
        await asyncio.sleep(pause)
