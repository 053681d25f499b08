from __future__ import annotations

from typing import Any

import pytest

from shortft_core.events import LogLine
from store import events, logs
from tests.api.conftest import Api, problem, step

pytestmark = pytest.mark.parametrize("stack", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def job_id(api: Api) -> str:
    """A job with five updates and three lines of log; one update has an extreme loss."""
    made: str = api.submit()["id"]
    lease = api.claim().lease
    losses = [0.5, 0.4, 9.0, 0.3, float("nan")]
    reports: list[Any] = [step(update, loss) for update, loss in enumerate(losses, start=1)]
    reports.insert(2, LogLine(message="a NUL \0"))
    api.database.transact(lambda session: events.append(session, lease, reports))
    api.database.transact(lambda session: logs.append(session, lease, ["one", "two", "three"]))
    return made


def test_the_history_is_read_in_parts(api: Api, job_id: str) -> None:
    whole = api.client.get(f"/jobs/{job_id}/events").json()
    assert [event["seq"] for event in whole["data"]] == list(range(1, 9))
    assert [event["type"] for event in whole["data"][:3]] == [
        "job.created", "job.preparing", "job.metrics",
    ]  # fmt: skip
    assert (whole["last_seq"], whole["has_more"]) == (8, False)
    parts, after = [], 0
    while True:
        part = api.client.get(f"/jobs/{job_id}/events?after={after}&limit=3").json()
        parts += part["data"]
        after = part["last_seq"]
        if not part["has_more"]:
            break
    assert parts == whole["data"]
    assert api.client.get(f"/jobs/{job_id}/events?after=8").json()["last_seq"] == 8
    some = api.client.get(f"/jobs/{job_id}/events?types=job.created,job.log").json()["data"]
    assert [event["seq"] for event in some] == [1, 5]


def test_the_log_is_read_from_both_ends(api: Api, job_id: str) -> None:
    path = f"/jobs/{job_id}/logs"
    part = api.client.get(f"{path}?limit=2").json()
    assert [line["text"] for line in part["data"]] == ["one", "two"]
    assert part["has_more"] is True
    rest = api.client.get(f"{path}?after={part['last_number']}").json()
    assert [line["text"] for line in rest["data"]] == ["three"]
    assert rest["has_more"] is False
    tail = api.client.get(f"{path}?tail=2").json()
    assert [line["text"] for line in tail["data"]] == ["two", "three"]
    assert {line["attempt"] for line in tail["data"]} == {1}
    problem(api.client.get(f"{path}?tail=2&after=1"), 422, "invalid_value")


def test_curves_keep_their_peaks_and_leave_out_what_is_no_number(api: Api, job_id: str) -> None:
    path = f"/jobs/{job_id}/metrics"
    everything = api.client.get(path).json()
    assert [point[:2] for point in everything["series"]["loss"]] == [
        [1, 0.5], [2, 0.4], [3, 9.0], [4, 0.3],
    ]  # fmt: skip
    assert everything["series"]["loss"][0][2] == "2026-01-01T00:00:01Z"
    assert everything["downsampled"] is False
    assert {"loss", "terms/symmetry", "grad_norms/1"} <= set(everything["series"])
    some = api.client.get(f"{path}?key=loss&key=reward&since_update=2").json()["series"]
    assert {key: [point[0] for point in points] for key, points in some.items()} == {
        "loss": [3, 4],
        "reward": [3, 4],
    }
    thin = api.client.get(f"{path}?key=images_seen&max_points=4").json()
    assert thin["downsampled"] is True
    assert len(thin["series"]["images_seen"]) == 4


def test_parts_that_cannot_be_are_refused(api: Api, job_id: str) -> None:
    for query in (
        "events?after=-1", "events?after=99999999999", "events?limit=0", "events?limit=1001",
        "events?types=%00", "logs?limit=-1", "logs?tail=0", "logs?after=x", "metrics?max_points=3",
        "metrics?since_update=-1", "events/stream?after=-1",
    ):  # fmt: skip
        problem(api.client.get(f"/jobs/{job_id}/{query}"), 422, "invalid_request")
