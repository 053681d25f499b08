from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shortft_core import catalog
from shortft_core.events import StepMetrics
from shortft_core.spec import AlignSpec
from store import events, jobs, leases, measurements, results, workers
from store.measurements import Measurement
from store.workers import NewWorker

if TYPE_CHECKING:
    from tests.store.conftest import Bench


def _spec(reward: str = "symmetry", **method: Any) -> AlignSpec:
    return catalog.resolve(
        AlignSpec.model_validate(
            {
                "base_model": {"name": "shapes"},
                "method": {"type": "draft_k", "updates": 3, **method},
                "rewards": [{"name": reward}],
                "prompts": {"name": "shapes-train"},
            }
        )
    )


def _step(update: int, seconds: float, peak: int) -> StepMetrics:
    return StepMetrics(
        update=update,
        loss=0.0,
        reward=0.0,
        terms={},
        grad_norms={},
        learning_rate=1e-3,
        seconds=seconds,
        evaluations_with_gradient=1.0,
        evaluations_without_gradient=1.0,
        images_seen=update,
        peak_memory_bytes=peak,
    )


def _finish(bench: Bench, spec: AlignSpec, seconds: list[float], peak: int = 5) -> None:
    """A job that succeeds on a worker with a device of its own."""
    new = NewWorker(kind="train", host="a", pid=1, slots=1, device="cuda:A", version="0")
    worker = bench.database.transact(lambda session: workers.register(session, new))
    bench.database.transact(lambda session: jobs.create(session, jobs.NewJob(spec=spec)))
    lease = bench.claim(worker.id).lease
    steps = [_step(update, taken, peak) for update, taken in enumerate(seconds, start=1)]
    with bench.database.write() as session:
        events.append(session, lease, steps)
        results.succeed(session, lease, [])


def _measured(bench: Bench, spec: AlignSpec, device: str = "cuda:A") -> Measurement | None:
    with bench.database.read() as session:
        return measurements.measured(session, spec, device)


def test_the_median_of_jobs_that_cost_the_same(bench: Bench) -> None:
    assert _measured(bench, _spec()) is None
    _finish(bench, _spec(), [9.0, 2.0, 2.5], peak=3 * 2**30)
    assert _measured(bench, _spec()) == Measurement(2.5, 3 * 2**30, "cuda:A", 1)
    _finish(bench, _spec(updates=7, learning_rate=1e-4, checkpoint_every=5), [1.0], peak=7)
    _finish(bench, _spec(), [1.5], peak=7)
    assert _measured(bench, _spec(updates=100)) == Measurement(1.5, 3 * 2**30, "cuda:A", 3)


@pytest.mark.parametrize(
    "other",
    [{"batch_size": 8}, {"rank": 4}, {"accumulation": 2}, {"gradient_steps": 2}, {"steps": 20}],
)
def test_other_work_says_nothing(bench: Bench, other: dict[str, Any]) -> None:
    _finish(bench, _spec(), [1.0])
    assert _measured(bench, _spec(**other)) is None


def test_other_devices_methods_and_judges_say_nothing(bench: Bench) -> None:
    _finish(bench, _spec(), [1.0])
    assert _measured(bench, _spec(), "cpu") is None
    assert _measured(bench, _spec("compressibility")) is None
    assert _measured(bench, _spec(type="draft_lv")) is None
    assert _measured(bench, _spec()) is not None


def test_only_what_succeeded_counts(bench: Bench) -> None:
    bench.create()
    lease = bench.claim().lease
    with bench.database.write() as session:
        events.append(session, lease, [_step(1, 1.0, 5)])
        leases.fail(session, lease, leases.Report(error_code="nan_loss"))
    assert _measured(bench, bench.spec) is None


def test_only_the_newest_jobs_are_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_ENOUGH", 1)
    _finish(bench, _spec(), [9.0])
    _finish(bench, _spec(), [1.0])
    assert _measured(bench, _spec()) == Measurement(1.0, 5, "cuda:A", 1)
