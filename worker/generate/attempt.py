"""One claimed batch: its files are fetched, the child asked, each answer published on its own."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from shortft_core.errors import ArtifactError
from shortft_core.spec.generation import AnyGeneration, GenerationSpec, ScoreSpec
from store import generation_leases
from store.attempts import Ending
from store.errors import LeaseLostError
from store.generation_leases import ClaimedGeneration, NewImage
from store.leases import Report
from store.object_keys import generation_prefix
from store.objects import StoredObject
from store.transitions import Lease
from worker.generate.adapter_cache import AdapterCache, fetch
from worker.generate.messages import Answer, Batch, Picture, Request
from worker.generate.renewal import Renewal
from worker.generate.warm_child import ChildLostError, WarmChild
from worker.outages import StorageError, storing, until_answered
from worker.process import Context

_T = TypeVar("_T")
_LOG: Final = logging.getLogger(__name__)
_SPECS: Final[TypeAdapter[GenerationSpec | ScoreSpec]] = TypeAdapter(AnyGeneration)
_FETCH_SECONDS: Final = 1.0
"""How long an object is asked for again; one that is absent does not come back."""


@dataclass(kw_only=True)
class BatchAttempt:
    """Rows that were claimed together; `run` leaves none of them held."""

    context: Context
    claimed: Sequence[ClaimedGeneration]
    child: WarmChild
    adapters: AdapterCache
    id: str
    folder: Path
    """For this batch alone; removed afterwards."""
    give_up: Callable[[], bool]
    """Whether the worker has no time left."""
    _open: dict[str, Lease] = field(default_factory=dict)
    _specs: dict[str, GenerationSpec | ScoreSpec] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Finishes every row, or gives it back."""
        self._open = {one.generation.id: one.lease for one in self.claimed}
        leases = list(self._open.values())
        renewal = Renewal(self.context.database, leases, self.context.store_settings)
        renewal.start()
        try:
            requests = [found for one in self.claimed if (found := self._request(one)) is not None]
            if requests:
                self._ask(requests, renewal)
        finally:
            renewal.stop()
            shutil.rmtree(self.folder, ignore_errors=True)
            self._release_rest(Ending.STOPPED if self.give_up() else Ending.LEASE_EXPIRED)

    def _request(self, claimed: ClaimedGeneration) -> Request | None:
        """What the child needs to know of a row; None for one that ended here."""
        row = claimed.generation
        try:
            spec = _SPECS.validate_python(row.request)
            request = self._with_files(row.id, spec)
        except ValidationError as error:
            self._fail(row.id, "invalid_config", f"the request cannot be read: {error}")
            return None
        except StorageError as error:
            self._on_storage_error(row.id, error)
            return None
        self._specs[row.id] = spec
        return request

    def _with_files(self, row_id: str, spec: GenerationSpec | ScoreSpec) -> Request:
        if isinstance(spec, GenerationSpec):
            folders = [
                self._stored(adapter.id, partial(self.adapters.fetch, adapter))
                for adapter in spec.adapters
            ]
            return Request(id=row_id, spec=spec, adapters=tuple(folders))
        return Request(id=row_id, spec=spec, pictures=tuple(self._pictures(row_id, spec)))

    def _pictures(self, row_id: str, spec: ScoreSpec) -> list[Path]:
        folder = self.folder / "uploads" / row_id
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for position, image in enumerate(spec.images):
            path = folder / f"{position:03d}{Path(image.key).suffix}"
            work = partial(fetch, self.context.objects, image.key, path, image.sha256)
            self._stored(image.key, work)
            files.append(path)
        return files

    def _stored(self, what: str, work: Callable[[], _T]) -> _T:
        return storing(what, work, self.give_up, patience_seconds=_FETCH_SECONDS)

    def _ask(self, requests: Sequence[Request], renewal: Renewal) -> None:
        batch = Batch(id=self.id, requests=tuple(requests), folder=self.folder)
        try:
            for answer in self.child.answers(batch, self.give_up):
                if answer.request in renewal.held:
                    self._conclude(answer)
                else:
                    _LOG.info("%s was cancelled", answer.request)
                    self._open.pop(answer.request, None)
                renewal.drop(answer.request)
        except ChildLostError as error:
            _LOG.warning("%s", error)
            said = Report(
                error_message=str(error), exit_cause=error.cause, log_tail=error.log_tail or None
            )
            self._release_rest(error.ending, said)

    def _conclude(self, answer: Answer) -> None:
        row_id, problem = answer.request, answer.problem
        if problem is not None:
            text = f"{problem.field}: {problem.message}" if problem.field else problem.message
            self._fail(row_id, problem.code, text)
            return
        try:
            images = [self._publish(row_id, picture) for picture in answer.pictures]
        except StorageError as error:
            self._on_storage_error(row_id, error)
            return
        outcome: Mapping[str, Any] = {
            "warnings": list(answer.warnings),
            "timings": answer.seconds,
        }
        self._end(
            row_id,
            lambda s, lease: generation_leases.succeed(s, lease, images, outcome),
        )

    def _publish(self, row_id: str, picture: Picture) -> NewImage:
        spec = self._specs[row_id]
        if isinstance(spec, ScoreSpec):
            scored = spec.images[picture.position]
            stat = self._stored(scored.key, lambda: self.context.objects.stat(scored.key))
            stored = StoredObject(scored.key, scored.sha256, stat.size_bytes)
        else:
            key = f"{generation_prefix(row_id, self._open[row_id].token)}{picture.file.name}"
            stored = storing(
                key, lambda: self.context.objects.write_file(key, picture.file), self.give_up
            )
        return NewImage(
            stored=stored,
            prompt=picture.prompt,
            seed=picture.seed,
            width=picture.width,
            height=picture.height,
            kind=picture.kind,
            media_type=picture.media_type,
            scores=picture.scores,
        )

    def _on_storage_error(self, row_id: str, error: StorageError) -> None:
        """What is absent or changed stays so; a store that is away is nobody's fault."""
        if isinstance(error.__cause__, ArtifactError):
            self._fail(row_id, "storage_error", str(error.__cause__))
            return
        said = Report(error_code="storage_error", error_message=str(error), exit_cause=str(error))
        self._release(row_id, Ending.LEASE_EXPIRED, said)

    def _fail(self, row_id: str, code: str, message: str) -> None:
        said = Report(error_code=code, error_message=message)
        self._end(row_id, lambda session, lease: generation_leases.fail(session, lease, said))

    def _release(self, row_id: str, ending: Ending, said: Report) -> None:
        self._end(row_id, lambda s, lease: generation_leases.release(s, lease, ending, said))

    def _release_rest(self, ending: Ending, said: Report | None = None) -> None:
        told = said or Report(exit_cause="the worker broke it off")
        for row_id in list(self._open):
            self._release(row_id, ending, told)

    def _end(self, row_id: str, work: Callable[[Session, Lease], object]) -> None:
        """One transition of a row, tried again as long as its lease can be valid."""
        lease = self._open.pop(row_id)
        lasts = self.context.store_settings.lease_seconds
        until = time.monotonic() + lasts
        try:
            until_answered(
                lambda: self.context.database.transact(lambda session: work(session, lease)),
                lambda: self.give_up() or time.monotonic() > until,
            )
        except LeaseLostError:
            _LOG.info("%s was cancelled, or belongs to another worker", row_id)
