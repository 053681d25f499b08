"""The generate station: claims requests in batches, and keeps one warm child for each slot."""

from __future__ import annotations

import logging
import time
from typing import Final

from store import generation_leases
from store.generation_leases import ClaimedGeneration
from worker.devices import visible_gpus
from worker.folders import WorkerFolder
from worker.generate.adapter_cache import AdapterCache
from worker.generate.attempt import BatchAttempt
from worker.generate.warm_child import WarmChild
from worker.process import Context, Station
from worker.settings import DeviceSettings
from worker.slots import Slots

_LOG: Final = logging.getLogger(__name__)
MOST_REQUESTS: Final = 8
"""In one batch; each may ask for sixteen pictures, and the last waits for all."""


def build(context: Context) -> Station:
    """The station of `python -m worker generate`."""
    station = GenerateStation(context, visible_gpus(DeviceSettings()))
    if context.settings.generate_start == "with_worker":
        station.start()
    return station


class GenerateStation:
    """Batches in slots, each with a child of its own; GPUs are shared with trainers."""

    def __init__(self, context: Context, gpus: tuple[str, ...] = ()) -> None:
        self._context = context
        self._folder = WorkerFolder(context.settings.work_dir / "generations" / context.worker_id)
        self._adapters = AdapterCache(context.settings.work_dir / "adapters", context.objects)
        self.children = [
            WarmChild(
                context.settings,
                {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {},
            )
            for slot in range(context.slots)
        ]
        self._slots = Slots(self.children)
        self._deadline: float | None = None

    def start(self) -> None:
        """Starts the children, so that the first request does not wait for their libraries."""
        for child in self.children:
            child.start()

    def drain(self) -> None:
        """Claims and works until nothing is due or the worker stops."""
        with self._slots.taken() as child:
            if child is None:
                return
            while not self._context.stopping.is_set() and (claimed := self._claim()):
                self._attempt(claimed, child).run()

    def stop(self) -> None:
        """Lets what runs finish within the grace, and gives the rest back."""
        # Twice: what is given back after the first grace has to be written.
        patience = 2 * self._context.settings.grace_seconds
        if left := self._slots.wait_until_idle(patience):
            _LOG.warning("%d batches did not end within %g s", left, patience)
        for child in self.children:
            child.close()
        self._folder.remove()

    def _claim(self) -> tuple[ClaimedGeneration, ...]:
        context = self._context
        return context.database.transact(
            lambda session: generation_leases.claim_batch(
                session,
                context.worker_id,
                most=MOST_REQUESTS,
                lease_seconds=context.store_settings.lease_seconds,
            )
        )

    def _attempt(self, claimed: tuple[ClaimedGeneration, ...], child: WarmChild) -> BatchAttempt:
        first = claimed[0].lease
        batch_id = f"{first.row_id}.t{first.token}"
        _LOG.info("batch %s of %d requests", batch_id, len(claimed))
        return BatchAttempt(
            context=self._context,
            claimed=claimed,
            child=child,
            adapters=self._adapters,
            id=batch_id,
            folder=self._folder.path / batch_id,
            give_up=self._is_over,
        )

    def _is_over(self) -> bool:
        """Whether the grace has passed, which begins at the first look at a worker that stops.

        Not in `stop`, which comes only when Celery's threads have ended their work.
        """
        if not self._context.stopping.is_set():
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + self._context.settings.grace_seconds
        return time.monotonic() > self._deadline
