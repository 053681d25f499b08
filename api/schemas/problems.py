"""The shape of every refusal: RFC 9457 with a code for programs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"


class Mistake(BaseModel):
    """One mistake of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    where: Literal["body", "query", "path", "header"]
    """Which part of the request it is in."""
    pointer: str = Field(examples=["/method/rank"])
    """JSON pointer into that part; of a parameter, its name."""
    code: str = Field(examples=["greater_than_equal"])
    message: str


class Problem(BaseModel):
    """Why a request was refused; further members depend on the code."""

    model_config = ConfigDict(
        extra="allow",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/invalid_state",
                    "title": "Not in this state",
                    "status": 409,
                    "detail": "job job_01… is succeeded: cancel is refused, rerun, delete may be",
                    "instance": "/jobs/job_01…/cancel",
                    "code": "invalid_state",
                    "param": None,
                    "request_id": "req_4b1f0c2d9a7e4f6b8c1d2e3f4a5b6c7d",
                    "errors": [],
                    "current_status": "succeeded",
                    "allowed_actions": ["rerun", "delete"],
                }
            ]
        },
    )

    type: str
    """Address of a page about the code."""
    title: str
    status: int
    detail: str
    instance: str
    """Path of the request."""
    code: str
    """Open enumeration: later versions add values."""
    param: str | None
    """The field that is wrong, `a.b.0.c`."""
    request_id: str
    """Also in the header `X-Request-ID` and in the service's log."""
    errors: list[Mistake]
    """All mistakes of the request, where it has several."""
