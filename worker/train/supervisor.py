"""The train station: claims jobs that are due, and works on as many at once as it has slots."""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy.orm import Session

from store import leases
from store.leases import Claim
from worker.devices import visible_gpus
from worker.folders import WorkerFolder
from worker.process import Context, Station
from worker.protocol import elapsed_seconds
from worker.settings import DeviceSettings
from worker.slots import Slots
from worker.train.attempt import Attempt

_LOG: Final = logging.getLogger(__name__)
RESOURCE_CLASSES: Final = ("default",)
"""What jobs ask for unless an operator has several kinds of workers."""


def build(context: Context) -> Station:
    """The station of `python -m worker train`."""
    return TrainStation(context, visible_gpus(DeviceSettings()))


class TrainStation:
    """Attempts in slots; each slot has GPUs of its own where there are any."""

    def __init__(self, context: Context, gpus: tuple[str, ...] = ()) -> None:
        self._context = context
        self._gpus = gpus
        self._runs = WorkerFolder(context.settings.work_dir / "runs" / context.worker_id)
        self._locks = context.settings.work_dir / "locks"
        self._slots = Slots(range(context.slots))

    def drain(self) -> None:
        """Claims and works until nothing is due or the worker stops."""
        with self._slots.taken() as slot:
            if slot is None:
                return
            while not self._context.stopping.is_set():
                claimed_at, claim = self._claim()
                if claim is None:
                    return
                self._attempt(claim, claimed_at, slot).run()

    def stop(self) -> None:
        """Waits for the attempts, which end by themselves once the worker stops."""
        # Twice: the trainer may take one grace to save, the database another to answer.
        patience = 2 * self._context.settings.grace_seconds
        if left := self._slots.wait_until_idle(patience):
            _LOG.warning("%d attempts did not end within %g s", left, patience)
            return
        self._runs.remove()

    @property
    def is_busy(self) -> bool:
        """Whether it works on a job."""
        return self._slots.busy > 0

    def _claim(self) -> tuple[float, Claim | None]:
        """What is due, and when it was asked for."""
        context = self._context

        def claim(session: Session) -> tuple[float, Claim | None]:
            # Before the claim: a worker may be frozen at any time after it.
            asked_at = elapsed_seconds()
            return asked_at, leases.claim(
                session,
                context.worker_id,
                RESOURCE_CLASSES,
                lease_seconds=context.store_settings.lease_seconds,
            )

        return context.database.transact(claim)

    def _attempt(self, claim: Claim, claimed_at: float, slot: int) -> Attempt:
        gpus = share_of(self._gpus, slot, self._context.slots)
        names = [*(f"gpu-{gpu}" for gpu in gpus), claim.job.id]
        _LOG.info("attempt %d at %s", claim.lease.attempt, claim.job.id)
        return Attempt(
            context=self._context,
            claim=claim,
            claimed_at=claimed_at,
            folder=self._runs.path / f"{claim.job.id}.t{claim.lease.token}",
            gpus=gpus,
            locks=tuple(self._locks / f"{name}.lock" for name in names),
        )


def share_of(gpus: tuple[str, ...], slot: int, slots: int) -> tuple[str, ...]:
    """The GPUs of a slot: an equal part of all, or one that several slots take in turn."""
    if not gpus:
        return ()
    return gpus[slot::slots] or (gpus[slot % len(gpus)],)
