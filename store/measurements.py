"""What finished jobs measured: seconds and memory of work like a job that is being planned."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Float, cast, select
from sqlalchemy.orm import Session

from shortft_core.spec import AlignSpec, DistilSpec
from store.models import Job, JobEvent, equals_inline
from store.states import JobStatus

_NEWEST: Final = 20
"""Jobs that are looked at."""
_ENOUGH: Final = 3
"""Jobs like the planned one whose figures are read."""
_MOST_UPDATES: Final = 5000
"""Of one job: its median does not move any more."""
_FREE: Final = frozenset(
    {
        "updates", "seconds", "learning_rate", "warmup_updates", "weight_decay", "max_grad_norm",
        "checkpoint_every", "stage_switch", "ema_decay", "reward_threshold", "preset",
        "crop_margin", "init_adapter",
    }
)  # fmt: skip
"""Fields of a method that leave the cost of one update as it is."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures of one kind of work on one kind of device."""

    seconds_per_update: float
    """Median over updates, then over jobs."""
    peak_memory_bytes: int
    """The most of any of the jobs."""
    device: str
    jobs: int
    """Finished jobs that these figures are from."""


def measured(session: Session, spec: AlignSpec | DistilSpec, device: str) -> Measurement | None:
    """What the newest finished jobs with the same cost of an update measured on `device`.

    `spec` is resolved. None where no such job has succeeded, and for distillations.
    """
    if not isinstance(spec, AlignSpec):
        return None
    wanted = _cost(spec.model_dump(mode="json"))
    alike = [job_id for job_id, other in _newest(session, spec, device) if _cost(other) == wanted]
    figures = [found for job_id in alike[:_ENOUGH] if (found := _figures(session, job_id))]
    if not figures:
        return None
    return Measurement(
        seconds_per_update=statistics.median(seconds for seconds, _ in figures),
        peak_memory_bytes=max(memory for _, memory in figures),
        device=device,
        jobs=len(figures),
    )


def _newest(
    session: Session, spec: AlignSpec, device: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = session.execute(
        select(Job.id, Job.spec)
        .where(
            equals_inline(Job.status, JobStatus.SUCCEEDED),
            Job.base_model == str(spec.base_model),
            Job.method == spec.method.type,
            Job.device == device,
        )
        .order_by(Job.id.desc())
        .limit(_NEWEST)
    )
    return ((job_id, found) for job_id, found in rows)


def _cost(spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the cost of one update follows from: the method's work, and the judges in its loss."""
    method = {name: value for name, value in spec["method"].items() if name not in _FREE}
    return method, sorted(reward["name"] for reward in spec["rewards"])


def _figures(session: Session, job_id: str) -> tuple[float, int] | None:
    """Median seconds of an update and peak memory of one job; None if it reported no update."""
    rows = session.execute(
        select(
            cast(JobEvent.data["seconds"].as_string(), Float),
            cast(JobEvent.data["peak_memory_bytes"].as_string(), Float),
        )
        .where(JobEvent.job_id == job_id, JobEvent.type == "job.metrics")
        .order_by(JobEvent.seq)
        .limit(_MOST_UPDATES)
    ).all()
    if not rows:
        return None
    return statistics.median(seconds for seconds, _ in rows), int(max(peak for _, peak in rows))
