"""Log lines: for people, or one JSON object a line; each with the id of its request."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final, Literal

_FIELDS: Final = ("request_id", "status", "duration_seconds")
_CONSOLE: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One object a line; a traceback is a field of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: vars(record)[name] for name in _FIELDS if name in vars(record)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configuration(kind: Literal["console", "json"]) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes; uvicorn hands it on."""
    formats = {"console": {"format": _CONSOLE}, "json": {"()": f"{__name__}.JsonFormatter"}}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formats[kind]},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": "INFO"},
    }
