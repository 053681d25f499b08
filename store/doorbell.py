"""Wakes workers without making anybody wait: a thread publishes, and a dead broker only counts.

Ring after the commit. A ring that is lost comes again, because the sweeper looks for rows that
nobody was told of.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, Protocol

from store.broker import WAKE_UP_SECONDS, Queue, Role, celery_app
from store.settings import StoreSettings

if TYPE_CHECKING:
    from celery import Celery

_LOG: Final = logging.getLogger(__name__)
_MOST_WAITING: Final = 100
"""Wake-ups of one queue; more would wake nobody sooner, and without a worker they would pile up."""
_CLOSE_SECONDS: Final = 5.0


class Bell(Protocol):
    """Whatever can be told that a queue has work."""

    def ring(self, queue: Queue) -> None:
        """Tells it, at once and without failing."""
        ...


class Doorbell:
    """A Bell that sends Celery messages; rings of one queue that are not yet sent become one."""

    def __init__(self, app: Celery) -> None:
        self.failures = 0
        """Rings that did not reach the broker."""
        self.published = 0
        """Rings that did."""
        self._app = app
        self._waiting: set[Queue] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, queue: Queue) -> None:
        """Notes that the queue's workers are to be woken; nothing happens once it is closed."""
        with self._changed:
            self._waiting.add(queue)
            self._changed.notify_all()

    def close(self) -> None:
        """Sends what waits, for a few seconds at most, and disconnects."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_SECONDS)
        self._app.pool.force_close_all()
        self._app.close()

    def _run(self) -> None:
        while (queue := self._next()) is not None:
            self._publish(queue)

    def _next(self) -> Queue | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.pop() if self._waiting else None

    def _publish(self, queue: Queue) -> None:
        try:
            with self._app.producer_pool.acquire(block=True) as producer:
                declared = self._app.amqp.queues[str(queue)](producer.channel)
                if declared.queue_declare().message_count < _MOST_WAITING:
                    self._app.send_task(queue.task, producer=producer, expires=WAKE_UP_SECONDS)
        except Exception as error:  # noqa: BLE001  whatever a broker does, the thread goes on
            self.failures += 1
            _LOG.warning("could not wake %s: %r", queue, error)
        else:
            self.published += 1


def open_doorbell(settings: StoreSettings, *, role: Role) -> Doorbell:
    """A doorbell on the broker of these settings; whoever opens it closes it."""
    return Doorbell(celery_app(settings, role=role))
