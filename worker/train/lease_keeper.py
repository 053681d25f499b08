"""Keeps a claimed job: renews its lease, passes renewals on, and hears what users ask for.

A thread of its own, because uploads and transactions of the attempt may take long.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from store import leases
from store.engine import Database
from store.errors import LeaseLostError
from store.settings import StoreSettings
from store.states import JobStatus
from store.transitions import Lease
from worker.outages import OUTAGES
from worker.protocol import Control, elapsed_seconds

_LOG: Final = logging.getLogger(__name__)
_TRY_AGAIN_SECONDS: Final = 1.0
_WISHES: Final = {JobStatus.CANCELLING: "cancel", JobStatus.PAUSING: "pause"}


class LeaseKeeper:
    """Renews until `stop`; `lost` is set when the job belongs to somebody else."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        settings: StoreSettings,
        *,
        control_seconds: float,
        claimed_at: float,
    ) -> None:
        """`claimed_at` is on the clock of `elapsed_seconds`."""
        self._database = database
        self._lease = lease
        self._settings = settings
        self._control_seconds = min(control_seconds, settings.heartbeat_seconds)
        self._tell: Callable[[Control], object] = lambda _: None
        self._renewed_at = claimed_at
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.lost = threading.Event()
        self.wish: str | None = None
        """`cancel` or `pause`, once somebody asked for it."""

    @property
    def renewed_at(self) -> float:
        """When the last renewal, or else the claim, began, on the clock of `elapsed_seconds`."""
        return self._renewed_at

    def start(self) -> None:
        """Begins to renew."""
        self._thread.start()

    def attach(self, tell: Callable[[Control], object]) -> None:
        """From now on tells a trainer what is to be known, beginning with what is known now."""
        self._tell = tell
        self._pass_on()
        if self.wish is not None:
            self._say_wish()

    def stop(self) -> None:
        """Ends the thread; the lease then ends by a transition, or by time."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        due = self._renewed_at + self._settings.heartbeat_seconds
        while not self._done.wait(self._wait(due)):
            try:
                if elapsed_seconds() >= due:
                    self._renew()
                    due = self._renewed_at + self._settings.heartbeat_seconds
                else:
                    self._look()
            except LeaseLostError:
                _LOG.warning("job %s belongs to another worker", self._lease.row_id)
                self.lost.set()
                self._tell(Control(control="lost"))
                return
            except OUTAGES as error:
                _LOG.warning("lease of %s was not renewed: %s", self._lease.row_id, error)

    def _wait(self, due: float) -> float:
        """Until the renewal or the next look; a renewal that failed is soon tried again."""
        left = due - elapsed_seconds()
        if left <= 0:
            return min(_TRY_AGAIN_SECONDS, self._settings.heartbeat_seconds / 4)
        return min(left, self._control_seconds)

    def _renew(self) -> None:
        began = elapsed_seconds()
        seconds = self._settings.lease_seconds
        status = self._database.transact(
            lambda session: leases.renew(session, self._lease, lease_seconds=seconds)
        )
        self._renewed_at = began
        self._pass_on()
        self._hear(status)

    def _look(self) -> None:
        with self._database.read() as session:
            status = leases.control(session, self._lease)
        self._hear(status)

    def _pass_on(self) -> None:
        self._tell(Control(control="ok", renewed_at=self._renewed_at))

    def _hear(self, status: JobStatus) -> None:
        wish = _WISHES.get(status)
        if wish != self.wish:
            self.wish = wish
            self._say_wish()

    def _say_wish(self) -> None:
        if self.wish is not None:
            self._tell(Control.model_validate({"control": self.wish}))
