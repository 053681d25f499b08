"""The child's side of the pipe: messages leave through what was stdout when the process began."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO, Self


class Wire:
    """Writes one JSON message a line; may be used by several threads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    @classmethod
    def take_stdout(cls) -> Self:
        """The process's stdout, which turns into its stderr for everybody else.

        A library that prints can no longer tear a message.
        """
        sys.stdout.flush()
        stream = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        return cls(stream)

    def send(self, message: Mapping[str, Any]) -> None:
        """Writes a message; nothing happens where nobody reads any more.

        A child that lost its reader learns it from its input, and saves its work first.
        """
        line = json.dumps(message, allow_nan=False, separators=(",", ":")) + "\n"
        with self._lock:
            view = memoryview(line.encode())
            try:
                while view:
                    view = view[self._stream.write(view) :]
            except BrokenPipeError:
                return
