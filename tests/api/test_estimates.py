"""Counts against the records that training itself runs, drawn many times where they are drawn."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest

from api.estimates import _updates_of_stages, evaluations_per_image
from shortft_core import catalog, schedule
from shortft_core.spec import AlignSpec
from store import events, leases, results, workers
from store.workers import NewWorker
from tests.api.conftest import SPEC, Api, step


def resolved(**method: Any) -> AlignSpec:
    return catalog.resolve(AlignSpec.model_validate(SPEC | {"method": method}))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"type": "draft_k", "gradient_steps": 3}, (3, 47)),
        ({"type": "draft_k", "gradient_steps": 3, "leash": 0.1}, (3 + 2, 47 + 1)),
        ({"type": "drtune", "leash": 0.1}, (5, 45 + 5)),
        ({"type": "draft_lv", "noised_copies": 2}, (3, 49)),
        ({"type": "refl"}, (1, 34.5)),
        ({"type": "alignprop", "cut": "fixed", "cut_step": 10}, (40, 10)),
        ({"type": "alignprop", "cut": "per_batch"}, (25.5, 24.5)),
        ({"type": "drtune"}, (5, 45)),
        ({"type": "direct"}, (4, 0)),
    ],
)
def test_the_cost_of_an_image(method: dict[str, Any], expected: tuple[float, float]) -> None:
    (counts,) = evaluations_per_image(resolved(**method))
    assert counts == pytest.approx(expected)


def test_the_stages_of_shortft_cost_what_the_paper_says() -> None:
    stages = list(evaluations_per_image(resolved(type="shortft")))
    assert stages == [(7, 11), (5, 24), (3, 36), (1, 49)]
    alone = list(evaluations_per_image(resolved(type="shortft", ablation="no_progressive")))
    assert alone == [(7, 11)]
    # Jumps have no base prediction to be held to: 4 of the 7 are steps with branches, and the
    # first of them sees latents that no branch has moved.
    held = evaluations_per_image(resolved(type="shortft", leash=0.1))
    assert held[0] == (7 + 3, 11 + 1)


def test_cuts_of_alignprop_are_counted_as_they_are_drawn() -> None:
    """Step i of 2 is kept with probability (i + 1) / 3, the last one if the other is not."""
    (counts,) = evaluations_per_image(resolved(type="alignprop", steps=2))
    kept = [
        sum((a <= 0, b <= 1)) or 1  # the published code's draw, from 0 to 2 for each step
        for a in range(3)
        for b in range(3)
    ]
    assert counts[0] == pytest.approx(fmean(kept))
    assert sum(counts) == pytest.approx(2)


def test_stops_of_drtune_are_counted_as_they_are_drawn() -> None:
    spec = resolved(type="drtune", steps=10, trained_steps=3, early_stop=3)
    (counts,) = evaluations_per_image(spec)
    chain = schedule.base_plan(10)
    drawn = [
        schedule.counts(schedule.drtune_plan(chain, schedule.drtune_steps(10, 3, start), stop))
        for start in range(1, schedule.drtune_starts(10, 3) + 1)
        for stop in (1, 2, 3)
    ]
    assert counts == pytest.approx(tuple(map(fmean, zip(*drawn, strict=True))))
    assert sum(counts) == pytest.approx(9)  # stops at 1, 2, 3 make 10, 9 and 8 calls


def test_the_longest_chains_are_counted_at_once() -> None:
    spec = resolved(type="drtune", steps=999, trained_steps=500, early_stop=500)
    ((attached, cut),) = evaluations_per_image(spec)
    assert attached + cut == pytest.approx(999 - 249.5)


def measure(api: Api, seconds: list[float]) -> None:
    """A job like `SPEC` that a worker with a device of its own has finished."""
    new = NewWorker(kind="train", host="h", pid=1, slots=1, device="cuda:A", version="1")
    worker = api.database.transact(lambda session: workers.register(session, new))
    api.submit()
    claim = api.taken(lambda session: leases.claim(session, worker.id, ["default"]))
    lease = claim.lease
    steps = [step(update, 0.5, seconds=taken) for update, taken in enumerate(seconds, start=1)]
    api.database.transact(lambda session: events.append(session, lease, steps))
    api.database.transact(lambda session: results.succeed(session, lease, []))


@pytest.mark.parametrize("stack", ["sqlite", "postgresql"], indirect=True)
def test_times_are_told_where_they_were_measured(api: Api) -> None:
    def told(**method: Any) -> tuple[Any, ...]:
        spec = SPEC | {"method": {"type": "draft_k", **method}}
        cost = api.client.post("/jobs/validate", json=spec).json()["estimate"]
        return cost["seconds"], cost["memory_bytes"], cost["device"]

    assert told(updates=4) == (None, None, None)
    measure(api, [9.0, 0.5, 0.5])
    assert told(updates=4) == (2.0, 7, "cuda:A")
    assert told(updates=4, batch_size=8) == (None, None, None)
    assert told(seconds=60) == (60.0, 7, "cuda:A")


def test_a_length_in_seconds_leaves_the_sums_open() -> None:
    assert _updates_of_stages(resolved(type="shortft", seconds=60), 4) == (None,) * 4
