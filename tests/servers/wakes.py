"""A Celery worker that prints each wake-up: `python -m tests.servers.wakes QUEUE`."""

from __future__ import annotations

import logging
import sys

from store.broker import Queue, celery_app
from store.settings import store_settings


def main() -> None:
    """Serves one queue until it is told to stop."""
    queue = Queue(sys.argv[1])
    app = celery_app(store_settings(), role="worker")
    out = sys.stdout  # Celery puts its log in its place
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)

    @app.task(name=queue.task)  # type: ignore[untyped-decorator]  # Celery carries no types
    def wake() -> None:
        out.write("woken\n")
        out.flush()

    app.worker_main(
        [
            *("worker", "-P", "threads", "-c", "1", "-Q", str(queue), "-l", "INFO"),
            *("--without-gossip", "--without-mingle"),
        ]
    )


if __name__ == "__main__":
    main()
