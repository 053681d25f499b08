"""A process that writes messages to files, or reads them: `python -m tests.servers.messages`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kombu import Connection

from store.broker import celery_app
from store.settings import StoreSettings

END = "end"
QUEUE = "train"


def connect(folder: Path) -> Connection:
    """A connection as Celery opens it."""
    return celery_app(StoreSettings(data_dir=folder), role="worker").connection_for_write()


def write(folder: Path, name: str, count: int) -> None:
    """Messages `name-0`, `name-1`, …, with pauses in which readers look."""
    with connect(folder) as connection, connection.SimpleQueue(QUEUE) as queue:
        for number in range(count):
            queue.put(f"{name}-{number}", serializer="json")
            time.sleep(0.001)


def read(folder: Path) -> None:
    """Prints each message it gets, until there has been none for a while."""
    with connect(folder) as connection, connection.SimpleQueue(QUEUE) as queue:
        while True:
            try:
                message = queue.get(timeout=2.0)
            except queue.Empty:
                return
            message.ack()
            sys.stdout.write(f"{message.payload}\n")


def main() -> None:
    """Arguments: folder, and for a writer its name and its number of messages."""
    folder, *rest = sys.argv[1:]
    if rest:
        write(Path(folder), rest[0], int(rest[1]))
    else:
        read(Path(folder))


if __name__ == "__main__":
    main()
