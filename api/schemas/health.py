"""Whether the service works."""

from __future__ import annotations

from typing import Literal

from api.schemas.common import Answer


class Alive(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Check(Answer):
    """One thing that the service needs."""

    status: Literal["ok", "failed"]
    required: bool
    """Whether the service is of no use without it."""
    detail: str | None
    """What is wrong; never an address or a secret."""


class Readiness(Answer):
    """Whether requests can be answered."""

    status: Literal["ok", "degraded", "failed"]
    """`degraded`: all requests are answered, work begins some seconds later."""
    checks: dict[str, Check]


class Version(Answer):
    """What runs here."""

    name: Literal["shortft"] = "shortft"
    version: str
    python: str
    api: Literal["v1"] = "v1"
