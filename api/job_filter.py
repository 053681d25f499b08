"""Which jobs a list shows, out of the query."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from api.auth import Caller
from shortft_core.errors import UnknownNameError, UserError
from store.jobs import JobFilter
from store.states import JobStatus

_EARLIEST: Final = 1970
_LATEST: Final = 9998
_LABEL: Final = re.compile(r"metadata\[([\w .:/-]{1,64})\]", re.ASCII)
METADATA_PARAMETER: Final[dict[str, Any]] = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "required": False,
    "description": "Labels that a job must have: `metadata[team]=vision`.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


def _storable(moment: datetime) -> datetime:
    """Times at the ends of the calendar cannot be moved into another zone."""
    if not _EARLIEST <= moment.year <= _LATEST:
        raise ValueError(f"the year lies outside {_EARLIEST} to {_LATEST}")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_storable)]
_Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]


class JobQuery(BaseModel):
    """Which jobs; all conditions hold at once."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: _Text | None = Field(default=None, examples=["queued,running"])
    """Statuses, comma-separated."""
    base_model: _Text | None = None
    method: _Text | None = None
    reward: _Text | None = None
    """A reward that a job is tuned towards."""
    created_after: Moment | None = None
    created_before: Moment | None = None
    q: _Text | None = None
    """Part of the name, in any case."""


@dataclass(frozen=True, slots=True)
class AskedJobs:
    """The filter of a request, before it is known who asks."""

    wanted: JobFilter

    def of(self, caller: Caller) -> JobFilter:
        """The filter within the caller's project."""
        return replace(self.wanted, project=caller.project)


async def asked_jobs(request: Request, query: Annotated[JobQuery, Query()]) -> AskedJobs:
    """The jobs that a request asks for; raises UserError for an unknown status or label."""
    return AskedJobs(
        JobFilter(
            statuses=_statuses(query.status),
            base_model=query.base_model,
            method=query.method,
            reward=query.reward,
            created_after=query.created_after,
            created_before=query.created_before,
            labels=_labels(request),
            text=query.q,
        )
    )


AnyJobFilter = Annotated[AskedJobs, Depends(asked_jobs)]
"""Parameter of a route: which jobs."""


def _statuses(given: str | None) -> frozenset[JobStatus]:
    names = [name.strip() for name in (given or "").split(",") if name.strip()]
    unknown = [name for name in names if name not in set(JobStatus)]
    if unknown:
        raise UnknownNameError("status", unknown[0], JobStatus)
    return frozenset(map(JobStatus, names))


def _labels(request: Request) -> dict[str, str]:
    labels = {}
    for name, text in request.query_params.multi_items():
        if not name.startswith("metadata"):
            continue
        found = _LABEL.fullmatch(name)
        if found is None or "\0" in text:
            raise UserError(
                "metadata",
                "a label is named by letters, digits and `_ .:/-`",
                "Write `metadata[name]=text`",
            )
        labels[found[1]] = text
    return labels
