"""The service in figures: names and units of Prometheus, values of the rows as they are now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from api.service import Service
from store import generations, jobs, statistics, workers
from store.models import Worker
from store.states import GenerationStatus
from store.statistics import Histogram

_DURATIONS: Final = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
_SHORT: Final = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120)
_MOST_REWARDS: Final = 50
"""Running jobs whose rewards are told one by one."""


class Figures(Collector):
    """Reads everything in one transaction; names jobs of one project, of all where it is None."""

    def __init__(self, service: Service, project: str | None) -> None:
        self._service = service
        self._project = project

    def collect(self) -> Iterator[Metric]:
        """The families, in the order of the interface's documentation."""
        with self._service.database.read() as session:
            yield from _of_jobs(session)
            yield from _of_running_jobs(session, self._project)
            yield from _of_generations(session)
            yield from _of_workers(workers.alive(session, within_seconds=3600.0))
        yield _gauge("sse_connections", "Open event streams.", self._service.streams.open)
        yield _counter(
            "doorbell_failures", "Wake-ups that no broker took.", self._service.doorbell.failures
        )


def _of_jobs(session: Session) -> Iterator[Metric]:
    counts = jobs.count_by_status(session)
    waiting = jobs.queue_depths(session)
    yield _labelled("jobs", "Jobs now.", "status", {str(key): n for key, n in counts.items()})
    depth = GaugeMetricFamily(
        "shortft_queue_depth", "Rows that wait for a worker.", labels=["queue", "resource_class"]
    )
    for resource_class in sorted({"default", *waiting}):
        depth.add_metric(["train", resource_class], waiting.get(resource_class, 0))
    queued = generations.count_by_status(session)[GenerationStatus.QUEUED]
    depth.add_metric(["generate", "default"], queued)
    yield depth
    finished = CounterMetricFamily(
        "shortft_jobs_finished", "Jobs that ended.", labels=["status", "error_code"]
    )
    for (status, code), count in statistics.finished_jobs(session).items():
        finished.add_metric([status, code or ""], count)
    yield finished
    worked = statistics.job_durations(session, _DURATIONS)
    yield _histogram("job_duration_seconds", "From first start to end.", worked, _DURATIONS)
    waited = statistics.job_waits(session, _DURATIONS)
    yield _histogram("queue_wait_seconds", "From creation to first start.", waited, _DURATIONS)


def _of_running_jobs(session: Session, project: str | None) -> Iterator[Metric]:
    step = GaugeMetricFamily(
        "shortft_train_step_seconds", "The last update of a running job.", labels=["job"]
    )
    reward = GaugeMetricFamily(
        "shortft_reward", "Last mean reward of a running job, raw units.", labels=["job", "name"]
    )
    for job_id, metrics in statistics.running_metrics(session, _MOST_REWARDS, project):
        step.add_metric([job_id], metrics.get("seconds", 0.0))
        for name, value in sorted(metrics.get("terms", {}).items()):
            reward.add_metric([job_id, name], value)
    yield step
    yield reward


def _of_generations(session: Session) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "shortft_generations", "Requests for images or scores that ended.", labels=["status"]
    )
    for status, count in sorted(statistics.finished_generations(session).items()):
        total.add_metric([status], count)
    yield total
    worked = statistics.generation_durations(session, _SHORT)
    yield _histogram("generation_seconds", "From first start to end.", worked, _SHORT)


def _of_workers(rows: Sequence[Worker]) -> Iterator[Metric]:
    now = datetime.now(tz=UTC)
    up = GaugeMetricFamily(
        "shortft_worker_up", "1 while it is heard of.", labels=["worker", "kind", "state"]
    )
    age = GaugeMetricFamily(
        "shortft_worker_heartbeat_age_seconds", "Since it was heard of.", labels=["worker", "kind"]
    )
    for row in rows:
        seconds = max(0.0, (now - row.heartbeat_at).total_seconds())
        up.add_metric([row.id, row.kind, row.state], seconds <= workers.ALIVE_SECONDS)
        age.add_metric([row.id, row.kind], seconds)
    yield up
    yield age


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"shortft_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"shortft_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"shortft_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(
    name: str, text: str, found: Histogram, borders: Sequence[float]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"shortft_{name}", text)
    buckets = [
        (str(float(border)), float(count))
        for border, count in zip(borders, found.below, strict=True)
    ]
    family.add_metric([], [*buckets, ("+Inf", float(found.count))], found.total_seconds)
    return family
