from __future__ import annotations

import threading
from typing import Any, Final

import pytest

from shortft_core import catalog
from shortft_core.spec import AlignSpec
from store import jobs, leases, results, transitions
from store.attempts import Limits
from store.broker import Queue
from store.models import Job
from store.states import JobStatus, Trigger
from tests.api.conftest import SPEC, Api, Opened, problem

UNKNOWN = "job_00000000000000000000000000"


def rung(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[Queue]:
    """Which bells requests ring from now on, beside ringing them; the sweeper rings as well."""
    heard: list[Queue] = []
    ring = type(api.service.doorbell).ring

    def hear(bell: Any, queue: Queue) -> None:
        if threading.current_thread().name.startswith("AnyIO"):
            heard.append(queue)
        ring(bell, queue)

    monkeypatch.setattr(type(api.service.doorbell), "ring", hear)
    return heard


def test_a_job_is_queued_and_a_worker_woken(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = rung(api, monkeypatch)
    answer = api.client.post("/jobs?priority=7", json=SPEC)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert answer.headers["retry-after"] == "2"
    assert int(answer.headers["ratelimit"].split("r=")[1].split(";")[0]) == 599
    assert heard == [Queue.TRAIN]
    with api.database.read() as session:
        row = jobs.get(session, job["id"])
    assert (row.status, row.priority, row.labels) == (JobStatus.QUEUED, 7, {"team": "a"})
    assert AlignSpec.model_validate(row.spec) == catalog.resolve(AlignSpec.model_validate(SPEC))
    assert job["spec"] == row.spec
    assert job["queue"] == {"position": 0, "reason": "no_worker", "estimated_start_at": None}
    assert job["progress"]["percent"] == 0.0
    assert job["progress"]["updates_total"] == 3
    assert job["allowed_actions"] == ["cancel", "pause"]
    assert api.client.get(job["urls"]["self"]).json()["id"] == job["id"]


def test_the_same_paths_are_served_below_v1(api: Api) -> None:
    job = api.submit()
    assert api.client.get(f"/v1/jobs/{job['id']}").json()["id"] == job["id"]
    assert "/v1/jobs" not in api.client.get("/openapi.json").json()["paths"]


def test_all_mistakes_of_the_form_are_reported_at_once(api: Api) -> None:
    wrong = SPEC | {
        "method": {"type": "shortft", "rank": 0, "learning_rte": 1},
        "rewards": [{"name": "hps"}, {"name": "symmetry", "weight": "x"}],
        "seed": 2**70,
    }
    body = problem(api.client.post("/jobs", json=wrong), 422, "invalid_request")
    found = {mistake["pointer"]: mistake for mistake in body["errors"]}
    assert {"/method/rank", "/method/learning_rte", "/rewards/0/name", "/seed"} <= set(found)
    assert found["/rewards/0/name"]["message"].startswith("unknown name 'hps'. Did you mean hps_v2")
    assert found["/method/learning_rte"]["code"] == "extra_forbidden"
    assert {mistake["where"] for mistake in body["errors"]} == {"body"}


def test_all_mistakes_of_meaning_are_reported_at_once(api: Api) -> None:
    wrong = SPEC | {
        "method": {"type": "shortft", "steps": 50, "segments": 3},
        "rewards": [{"name": "hps_v2", "source": {"name": "shpes"}}, {"name": "jpeg_size"}],
        "prompts": {"id": "ps_00000000000000000000000000"},
        "evaluation": {"prompts": {"path": "/etc/passwd"}},
    }
    body = problem(api.client.post("/jobs", json=wrong), 422, "invalid_request")
    assert [(mistake["pointer"], mistake["code"]) for mistake in body["errors"]] == [
        ("/prompts/id", "invalid_value"),
        ("/evaluation/prompts/path", "invalid_value"),
        ("/method/shortcut", "invalid_value"),
        ("/rewards/0/source/name", "unknown_name"),
        ("/rewards/1/name", "invalid_value"),
    ]
    assert "passwd" not in str(body)
    listed = api.client.get("/jobs").json()["data"]
    assert listed == []


MISTAKES: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"base_model": {"name": "shape"}}, "unknown_name", "base_model.name"),
    (
        {"method": {"type": "shortft", "steps": 30}, "base_model": {"name": "sd15"}},
        "no_legal_plan",
        "method.steps",
    ),
    ({"metadata": {str(index): "x" for index in range(17)}}, "invalid_value", "metadata"),
    ({"metadata": {"a": "\0"}}, "invalid_value", "metadata"),
    ({"prompts": {"id": "\0"}}, "invalid_value", "prompts.id"),
    ({"prompts": {"path": "prompts.txt"}}, "invalid_value", "prompts.path"),
    ({"prompts": {"inline": ["a"] * 1_001}}, "invalid_value", "prompts.inline"),
    ({"prompts": {"inline": ["\0" * 200, "a" * 199_801]}}, "invalid_value", "prompts.inline"),
    (
        {"evaluation": {"prompts": {"inline": ["a"] * 1_001}}},
        "invalid_value",
        "evaluation.prompts.inline",
    ),
]


def test_one_mistake_has_a_code_of_its_own(api: Api) -> None:
    for change, code, param in MISTAKES:
        body = problem(api.client.post("/jobs", json=SPEC | change), 422, code)
        assert body["param"] == param


def test_prompts_within_a_specification_have_a_limit(api: Api) -> None:
    most = [f"{index:03d}" + "a" * 197 for index in range(1_000)]
    answer = api.client.post("/jobs/validate", json=SPEC | {"prompts": {"inline": most}})
    assert answer.status_code == 200, answer.text
    longer = [*most[:-1], most[-1] + "a"]
    answer = api.client.post("/jobs/validate", json=SPEC | {"prompts": {"inline": longer}})
    assert "POST /prompt-sets" in problem(answer, 422, "invalid_value")["detail"]


def test_a_list_that_is_too_long_is_refused_before_it_is_compared(api: Api) -> None:
    for change, pointer in (
        ({"rewards": [{"name": "symmetry"}] * 33}, "/rewards"),
        ({"evaluation": {"held_out": ["hps_v2"] * 33}}, "/evaluation/held_out"),
    ):
        body = problem(api.client.post("/jobs", json=SPEC | change), 422, "invalid_request")
        assert [mistake["pointer"] for mistake in body["errors"]] == [pointer]


def test_validate_resolves_and_counts_without_making_a_job(api: Api) -> None:
    spec = SPEC | {"method": {"type": "shortft", "updates": 120, "batch_size": 2}}
    answer = api.client.post("/jobs/validate", json=spec)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["spec"]["method"]["shortcut"]["name"] == "shapes-shortcut"
    cost = body["estimate"]
    assert [stage["updates"] for stage in cost["stages"]] == [66, 24, 18, 12]
    attached = [stage["per_image"]["with_gradient"] for stage in cost["stages"]]
    assert attached == [7, 5, 3, 1]  # the paper's figures for 50 steps and k = 4
    images = 2 * (66 * 7 + 24 * 5 + 18 * 3 + 12)
    assert cost["total"]["with_gradient"] == images
    assert (cost["images"], cost["seconds"], cost["memory_bytes"]) == (240, None, None)
    assert cost["is_exact"] is True
    assert api.client.get("/jobs").json()["data"] == []


def test_a_distillation_is_a_job_too(api: Api) -> None:
    spec = {"kind": "distil", "base_model": {"name": "shapes"}, "prompts": {"name": "shapes-train"}}
    body = api.client.post("/jobs/validate", json=spec).json()
    assert body["estimate"] is None
    assert body["spec"]["guidance_scale"] == 3.0
    job = api.client.post("/jobs", json=spec).json()
    assert (job["kind"], job["method"], job["rewards"]) == ("distil", None, [])
    assert job["progress"]["updates_total"] == 5000


def test_an_unchanged_job_is_not_sent_again(api: Api) -> None:
    job = api.submit()
    first = api.client.get(f"/jobs/{job['id']}")
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    again = api.client.get(f"/jobs/{job['id']}", headers={"If-None-Match": f'"x", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    api.client.patch(f"/jobs/{job['id']}", json={"metadata": {"team": "b"}})
    changed = api.client.get(f"/jobs/{job['id']}", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.json()["metadata"] == {"team": "b"}


def test_a_heartbeat_makes_an_answer_another(api: Api) -> None:
    path = f"/jobs/{api.submit()['id']}"
    claim = api.claim()
    first = api.client.get(path)
    known = {"If-None-Match": first.headers["etag"]}
    assert api.client.get(path, headers=known).status_code == 304
    api.database.transact(lambda session: leases.renew(session, claim.lease))
    later = api.client.get(path, headers=known)
    assert later.json()["worker"]["heartbeat_at"] > first.json()["worker"]["heartbeat_at"]


def test_a_parent_that_is_deleted_makes_an_answer_another(api: Api) -> None:
    parent = f"/jobs/{api.submit()['id']}"
    api.client.post(f"{parent}/cancel")
    path = api.client.post(f"{parent}/rerun").headers["location"]
    known = {"If-None-Match": api.client.get(path).headers["etag"]}
    assert api.client.delete(parent).status_code == 204
    later = api.client.get(path, headers=known)
    assert (later.status_code, later.json()["parent"]) == (200, None)


def test_a_job_says_what_it_is_made_of(api: Api) -> None:
    rewards = [{"name": "symmetry"}, {"name": "brightness", "weight": 0.5}]
    job = api.submit(rewards=rewards, seed=7)
    assert job["rewards"] == ["symmetry", "brightness"]
    assert (job["prompt_set"], job["eval_prompt_set"]) == ("shapes-train", "shapes-eval")
    assert (job["seed"], job["attempt"], job["max_attempts"]) == (7, 0, Limits().attempts)
    inline = api.submit(prompts={"inline": ["a cat", "a dog"]})
    assert (inline["prompt_set"], inline["eval_prompt_set"]) == (None, None)
    listed = api.client.get("/jobs").json()["data"]
    assert [found["rewards"] for found in listed] == [["symmetry"], job["rewards"]]


def test_priority_moves_a_job_within_the_queue(api: Api) -> None:
    first, second = api.submit(), api.submit()
    assert second["queue"]["position"] == 1
    moved = api.client.patch(f"/jobs/{second['id']}", json={"priority": 5}).json()
    assert (moved["priority"], moved["queue"]["position"]) == (5, 0)
    assert api.client.get(f"/jobs/{first['id']}").json()["queue"]["position"] == 1


def test_only_labels_and_priority_can_be_changed(api: Api) -> None:
    job = api.submit()
    changes: list[dict[str, Any]] = [{}, {"priority": 101}, {"status": "queued"}, {"metadata": 1}]
    for change in changes:
        problem(api.client.patch(f"/jobs/{job['id']}", json=change), 422, "invalid_request")


def test_verbs_lead_through_the_states(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/jobs/{api.submit()['id']}"
    heard = rung(api, monkeypatch)
    assert api.client.post(f"{path}/pause").json()["status"] == "paused"
    assert heard == []
    assert api.client.post(f"{path}/resume").json()["status"] == "queued"
    assert heard == [Queue.TRAIN]
    api.claim()
    running = api.client.post(f"{path}/cancel").json()
    assert (running["status"], running["worker"]["id"]) == ("cancelling", "wrk_a")
    body = problem(api.client.post(f"{path}/pause"), 409, "invalid_state")
    assert (body["current_status"], body["allowed_actions"]) == ("cancelling", [])
    problem(api.client.delete(path), 409, "invalid_state")


def test_retry_and_rerun_make_new_jobs(api: Api) -> None:
    job = api.submit()
    api.client.post(f"/jobs/{job['id']}/cancel")
    for verb in ("retry", "rerun"):
        answer = api.client.post(f"/jobs/{job['id']}/{verb}")
        assert answer.status_code == 202, answer.text
        made = answer.json()
        assert answer.headers["location"] == f"/jobs/{made['id']}"
        assert made["id"] != job["id"]
        assert made["parent"] == {"job_id": job["id"], "update": None}
        assert made["spec"] == job["spec"]
        problem(api.client.post(f"/jobs/{made['id']}/rerun"), 409, "invalid_state")


def test_a_finished_job_can_be_deleted(api: Api) -> None:
    path = f"/jobs/{api.submit()['id']}"
    problem(api.client.delete(path), 409, "invalid_state")
    api.client.post(f"{path}/cancel")
    assert api.client.delete(path).status_code == 204
    problem(api.client.get(path), 404, "not_found")
    problem(api.client.delete(path), 404, "not_found")


def test_lists_go_on_by_cursor_and_link(api: Api) -> None:
    made = [api.submit(name=f"job {index}")["id"] for index in range(5)]
    seen: list[str] = []
    url: str | None = "/jobs?limit=2&status=queued"
    while url:
        answer = api.client.get(url)
        page = answer.json()
        seen += [job["id"] for job in page["data"]]
        assert (page["first_id"], page["last_id"]) == (seen[-len(page["data"])], seen[-1])
        link = answer.headers.get("link")
        assert (link is not None) == page["has_more"]
        url = link.split(">")[0].removeprefix("<") if link else None
    assert seen == made[::-1]
    before = api.client.get(f"/jobs?limit=2&before={made[1]}").json()
    assert [job["id"] for job in before["data"]] == [made[3], made[2]]


def test_lists_are_filtered(api: Api) -> None:
    mine = api.submit(name="50 % mirror", metadata={"team": "b", "run": "1"})["id"]
    other = api.submit(rewards=[{"name": "brightness"}])["id"]
    api.client.post(f"/jobs/{other}/cancel")
    wanted = {
        "status=queued,running": mine,
        "status=cancelled": other,
        "metadata[team]=b&metadata[run]=1": mine,
        "q=50 %25 MIR": mine,
        "reward=brightness": other,
        "reward=symmetry&method=draft_k&base_model=shapes": mine,
        "created_after=2020-01-01T00:00:00Z&q=50": mine,
    }
    for query, job_id in wanted.items():
        found = api.client.get(f"/jobs?{query}").json()["data"]
        assert [job["id"] for job in found] == [job_id], query
    assert api.client.get("/jobs?created_before=2020-01-01T00:00:00Z").json()["data"] == []


BAD_QUERIES: Final = (
        "limit=-1", "limit=0", "limit=101", "limit=x", "after=1", "after=%00", "status=queud",
        "created_after=2020-01-01", "created_after=0001-01-01T00:00:00%2B14:00", "q=%00",
        "metadata[%22]=1", "metadata[a]=%00", "order=up", f"after={UNKNOWN}&before={UNKNOWN}",
)  # fmt: skip


def test_a_list_that_cannot_be_is_refused(api: Api) -> None:
    for query in BAD_QUERIES:
        answer = api.client.get(f"/jobs?{query}")
        assert answer.status_code == 422, (query, answer.text)
        assert answer.json()["code"] in {"invalid_request", "invalid_value", "unknown_name"}


def test_what_can_be_no_id_is_not_found(api: Api) -> None:
    for job_id in (UNKNOWN, "x", "%00", "..%2f..%2fetc", "job_é", "a" * 2000):
        problem(api.client.get(f"/jobs/{job_id}"), 404, "not_found")


def test_the_jobs_of_another_project_are_not_found(api: Api) -> None:
    theirs, ours = api.key(project="b"), api.key()
    job_id = api.client.post("/jobs", json=SPEC, headers=theirs).json()["id"]
    for method, path in [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/pause"),
        ("POST", "/resume"), ("POST", "/retry"), ("POST", "/rerun"), ("GET", "/events"),
        ("GET", "/events/stream"), ("GET", "/logs"), ("GET", "/metrics"), ("GET", "/samples"),
        ("GET", "/checkpoints"), ("GET", "/artifacts"), ("GET", "/report"),
    ]:  # fmt: skip
        content = {"priority": 1} if method == "PATCH" else None
        answer = api.client.request(method, f"/jobs/{job_id}{path}", headers=ours, json=content)
        problem(answer, 404, "not_found")
    assert api.client.get("/jobs", headers=ours).json()["data"] == []
    assert api.client.get(f"/jobs/{job_id}", headers=theirs).json()["status"] == "queued"


def test_a_key_has_a_quota_of_unfinished_jobs(open_api: Opened) -> None:
    api = open_api(most_open_jobs=2)
    key = api.key()
    first = api.client.post("/jobs", json=SPEC, headers=key).json()["id"]
    api.client.post("/jobs", json=SPEC, headers=key)
    body = problem(api.client.post("/jobs", json=SPEC, headers=key), 429, "quota_exceeded")
    assert (body["limit"], body["used"]) == (2, 2)
    api.client.post(f"/jobs/{first}/cancel", headers=key)
    assert api.client.post("/jobs", json=SPEC, headers=key).status_code == 202
    answer = api.client.post(f"/jobs/{first}/rerun", headers=key)
    problem(answer, 429, "quota_exceeded")


def test_a_failed_job_tells_why(api: Api) -> None:
    job_id = api.submit()["id"]
    claim = api.claim()
    report = leases.Report(error_code="out_of_memory", error_message="The GPU is too small.")
    api.database.transact(lambda session: leases.fail(session, claim.lease, report))
    job = api.client.get(f"/jobs/{job_id}").json()
    assert job["error"] == {
        "code": "out_of_memory",
        "message": "The GPU is too small.",
        "retryable": True,
    }
    assert job["allowed_actions"] == ["retry", "rerun", "delete"]
    assert job["finished_at"].endswith("Z")


def test_a_finished_job_names_its_result(api: Api) -> None:
    job_id = api.submit()["id"]
    claim = api.claim()
    api.database.transact(lambda session: results.succeed(session, claim.lease, []))
    job = api.client.get(f"/jobs/{job_id}").json()
    assert job["status"] == "succeeded"
    assert job["result"] == {"adapter_id": None, "artifacts": []}
    assert job["durations"]["running_seconds"] >= 0


def test_progress_is_told_from_what_the_trainer_reported(api: Api) -> None:
    job_id = api.submit()["id"]
    claim = api.claim()

    def report(session: Any) -> Job:
        job = transitions.lock_held(session, claim.lease)
        metrics = {"wall_seconds": 4.0, "loss": 0.5}
        return transitions.change(
            session, job, Trigger.START, updates_total=3, updates_completed=2,
            latest_metrics=metrics,
        )  # fmt: skip

    api.database.transact(report)
    progress = api.client.get(f"/jobs/{job_id}").json()["progress"]
    assert progress == {
        "percent": 66.67,
        "updates_completed": 2,
        "updates_total": 3,
        "seconds_elapsed": 4.0,
        "seconds_remaining": 2.0,
        "updates_per_second": 0.5,
        "estimate_available": True,
    }
