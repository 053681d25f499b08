"""The way to the service for callers that await; `connection` is its twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from shortft_client.answers import Artifact, JobEvent
from shortft_client.call import Call, Pages
from shortft_client.download import Download
from shortft_client.following import Following
from shortft_client.retries import Outcome, Retries, may_be_done
from shortft_client.wire import STREAM_TIMEOUT, failure, request_of, result_of

T = TypeVar("T")


class AsyncConnection:
    """Sends described requests, and repeats those that were cut off."""

    def __init__(self, http: httpx2.AsyncClient, retries: Retries, patience_seconds: float) -> None:
        self.http = http
        self._retries = retries
        self.patience_seconds = patience_seconds
        """How long a service that does not answer is waited for."""
        self._address = str(http.base_url)

    async def send(self, call: Call[T]) -> T:
        """The result; raises ServiceError for a refusal, UnreachableError where no answer comes."""
        lost = False
        for failures in count(1):
            outcome = await self._attempt(call)
            pause = self._retries.pause_seconds(failures, outcome)
            if pause is None:
                return result_of(call, outcome, self._address, lost=lost)
            lost = lost or may_be_done(outcome)
            await asyncio.sleep(pause)
        raise AssertionError("counting does not end")

    async def pages(self, pages: Pages[T]) -> AsyncIterator[T]:
        """All items of a list."""
        items, more = await self.send(pages.page(None))
        for item in items:
            yield item
        while more is not None:
            items, more = await self.send(pages.page(more))
            for item in items:
                yield item

    async def stream(self, job_id: str, after: int) -> AsyncIterator[JobEvent]:
        """A job's events behind number `after` as they come, until its last one."""
        following = Following(job_id, after, self._retries, self.patience_seconds)
        while True:
            outcome: Outcome
            try:
                async with self.http.sse(
                    following.path, headers=following.headers(), timeout=STREAM_TIMEOUT
                ) as source:
                    outcome = source.response
                    if following.begin(outcome):
                        async for frame in source:
                            for event in following.take(frame):
                                yield event
                    else:
                        await outcome.aread()
            except httpx2.RequestError as error:
                outcome = error
            if following.is_done:
                return
            await asyncio.sleep(following.pause_seconds(outcome, self._address))

    async def download(self, job_id: str, artifact: Artifact, target: Path) -> Path:
        """Fetches a file, going on where it was cut off; raises ArtifactError for other bytes."""
        download = Download(job_id, artifact, target)
        while not download.is_complete:
            outcome = await self._fetch(download)
            if outcome is None:
                break
            pause = download.pause_seconds(outcome, self._retries)
            if pause is None:
                raise failure(outcome, self._address)
            await asyncio.sleep(pause)
        return download.finish()

    async def _attempt(self, call: Call[Any]) -> Outcome:
        try:
            return await self.http.send(request_of(self.http, call))
        except httpx2.RequestError as error:
            return error

    async def _fetch(self, download: Download) -> Outcome | None:
        """None once the answer was read to its end."""
        try:
            async with self.http.stream(
                "GET", download.path, headers=download.headers()
            ) as response:
                if not download.begin(response):
                    await response.aread()
                    return response
                async for chunk in response.aiter_bytes():
                    download.add(chunk)
        except httpx2.RequestError as error:
            return error
        return None
