"""Puts a generation into the queue, and waits for it where the caller prefers that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends
from fastapi.responses import JSONResponse, Response
from sqlalchemy.orm import Session

from api.auth import Caller, Generator
from api.generation_answers import answer
from api.idempotent import Keyed, Reply, once
from api.preferences import AnyPreference, Preference
from api.problems import ProblemError
from api.schemas.generations import GenerationAnswer
from api.service import AnyService, Service
from api.urls import AnyUrls, Urls
from shortft_core.errors import ShortFTError
from store import generations, idempotency, live
from store.broker import Queue
from store.generations import NewGeneration
from store.ids import new_id
from store.models import Generation
from store.states import OPEN_GENERATION, GenerationStatus

RETRY_AFTER_SECONDS: Final = 2
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks for a generation, and how they want the answer."""

    service: Service
    caller: Caller
    preference: Preference
    urls: Urls
    headers: Mapping[str, str]
    """Of any answer to the caller: its rate limits."""

    def submit(
        self,
        made: NewGeneration | ShortFTError,
        keyed: Keyed | None,
        warnings: tuple[str, ...] = (),
    ) -> Reply:
        """Queues the generation, once for each idempotency key, and wakes a worker.

        Raises an error in its place, unless an earlier request with the key was answered.
        """
        generation_id = new_id("gen") if isinstance(made, ShortFTError) else made.id

        def work(session: Session) -> Reply:
            def create() -> GenerationAnswer:
                if isinstance(made, ShortFTError):
                    raise made
                most_open = self.service.settings.most_open_generations
                generations.create(session, made, most_open=most_open)
                row = generations.get(session, made.id, made.project)
                return answer(row, self.service, self.urls, warnings=warnings)

            request = keyed.of(self.caller) if keyed is not None else None
            return once(session, request, generation_id, 202, create)

        reply = self.service.database.transact(work)
        self.service.doorbell.ring(Queue.GENERATE)
        return reply

    def is_repetition(self, keyed: Keyed | None) -> bool:
        """Whether an earlier request came with the key, so that this one will do nothing."""
        if keyed is None:
            return False
        with self.service.database.read() as session:
            return idempotency.is_known(session, keyed.of(self.caller))

    async def awaited(self, generation_id: str, seconds: float) -> Generation:
        """The generation once it is over, or as it is after the time; no thread waits for it."""

        def look() -> Generation:
            with self.service.database.read() as session:
                return generations.get(session, generation_id, self.caller.project)

        def look_for_end() -> Generation | None:
            row = look()
            return None if row.status in OPEN_GENERATION else row

        ended = await live.until(look_for_end, seconds)
        return await asyncio.to_thread(look) if ended is None else ended

    async def respond(
        self, reply: Reply, warnings: tuple[str, ...] = (), *, with_bytes: bool = False
    ) -> Response:
        """200 with what is finished within the time that the caller waits, else 202."""
        seconds = self.preference.wait_seconds
        headers = {**self.headers, **reply.headers, **self.preference.headers}
        if not seconds:
            return self._pending(reply, reply.body, headers)
        row = await self.awaited(reply.resource_id, seconds)
        shown = await asyncio.to_thread(
            lambda: answer(row, self.service, self.urls, warnings=warnings, with_bytes=with_bytes)
        )
        body = shown.model_dump(mode="json")
        if row.status in OPEN_GENERATION:
            return self._pending(reply, body, headers)
        headers["Content-Location"] = self.urls.of(f"/generations/{row.id}")
        return JSONResponse(body, 200, headers)

    async def respond_with_image(self, reply: Reply) -> Response:
        """The bytes of the only picture; the generation itself with 202 where it takes longer."""
        row = await self.awaited(reply.resource_id, self.preference.wait_seconds)
        headers = {**self.headers, **reply.headers, **self.preference.headers}
        if row.status in OPEN_GENERATION:
            body = answer(row, self.service, self.urls).model_dump(mode="json")
            return self._pending(reply, body, headers)
        if row.status is not GenerationStatus.SUCCEEDED:
            detail = row.error_message or f"generation {row.id} was {row.status}"
            extra: dict[str, Any] = {
                "current_status": row.status.value,
                "allowed_actions": ["delete"],
                "generation_id": row.id,
                "error_code": row.error_code,
            }
            raise ProblemError("invalid_state", detail, extra=extra)
        picture = row.images[0]
        data = await asyncio.to_thread(self.service.objects.read, picture.object_key)
        headers |= {
            "Content-Location": self.urls.of(f"/images/{picture.id}"),
            "X-Generation-Id": row.id,
            "X-Seed": str(picture.seed),
        }
        return Response(data, 200, headers, picture.media_type)

    def _pending(
        self, reply: Reply, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Response:
        """202 (200 for a repetition) and where the result will be."""
        where = self.urls.of(f"/generations/{reply.resource_id}")
        retry = {"Location": where, "Retry-After": str(RETRY_AFTER_SECONDS)}
        return JSONResponse(dict(body), reply.status, {**retry, **headers})


def resolved(work: Callable[[], _T], keyed: Keyed | None) -> _T | ShortFTError:
    """What `work` returns; what it raises as well, where the request may be a repetition.

    A repeated request gets its first answer, even if it could not be accepted any more.
    """
    try:
        return work()
    except ShortFTError as refused:
        if keyed is None:
            raise
        return refused


async def order(
    service: AnyService,
    caller: Generator,
    preferred: AnyPreference,
    urls: AnyUrls,
    response: Response,
) -> Order:
    """The order of a request."""
    return Order(service, caller, preferred, urls, dict(response.headers))


AnyOrder = Annotated[Order, Depends(order)]
"""Parameter of a route: who asks for a generation, and how."""
