"""The worker as a Celery application: one queue, one task, a thread for each slot."""

from __future__ import annotations

from typing import Any, Final

from celery import signals

from store.broker import Queue, celery_app
from store.settings import StoreSettings
from worker.process import WorkerProcess

_FLAGS: Final[dict[str, Any]] = {
    "pool": "threads",
    "without_gossip": True,
    "without_mingle": True,
    "quiet": True,
    "redirect_stdouts": False,
}


def serve(process: WorkerProcess, slots: int, settings: StoreSettings) -> int:
    """Works until the process is told to stop; returns its exit code."""
    app = celery_app(settings, role="worker")
    queue = Queue(process.kind)
    app.task(name=queue.task)(process.drain)

    def start(**_: object) -> None:
        process.start()

    def stop(**_: object) -> None:
        # No more: this runs in a signal handler.
        process.stopping.set()

    # Not worker_ready: that never comes while the broker is down.
    signals.worker_init.connect(start, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    try:
        worker = app.Worker(concurrency=slots, queues=[str(queue)], **_FLAGS)
        worker.start()
    finally:
        process.stop()
    return int(worker.exitcode or 0)
