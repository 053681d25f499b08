from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from shortft_core.prompts import PromptSet
from store import prompt_sets
from tests.api.conftest import SPEC, Api, problem
from tests.api.works import adapter


def test_a_repeated_request_does_nothing_and_gets_the_same_answer(api: Api) -> None:
    key = {"Idempotency-Key": "a"}
    first = api.client.post("/jobs", json=SPEC, headers=key)
    api.client.post(f"/jobs/{first.json()['id']}/cancel")
    again = api.client.post("/v1/jobs", json=dict(reversed(SPEC.items())), headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["location"] == f"/v1{first.headers['location']}"
    assert len(api.client.get("/jobs").json()["data"]) == 1


def test_a_key_belongs_to_one_body_one_path_and_one_project(api: Api) -> None:
    ours, theirs = api.key(), api.key(project="b")
    key = {"Idempotency-Key": "a"}
    first = api.client.post("/jobs", json=SPEC, headers=ours | key).json()["id"]
    other = api.client.post("/jobs", json=SPEC | {"seed": 1}, headers=ours | key)
    problem(other, 422, "idempotency_key_reused")
    other = api.client.post("/jobs?priority=1", json=SPEC, headers=ours | key)
    problem(other, 422, "idempotency_key_reused")
    second = api.client.post("/jobs", json=SPEC, headers=theirs | key)
    assert second.status_code == 202
    assert second.json()["id"] != first
    api.client.post(f"/jobs/{first}/cancel", headers=ours)
    reruns = [api.client.post(f"/jobs/{first}/rerun", headers=ours | key) for _ in range(2)]
    assert [answer.status_code for answer in reruns] == [202, 200]
    assert reruns[0].json() == reruns[1].json()


def test_of_requests_at_once_one_does_the_work(api: Api) -> None:
    def post(_: int) -> tuple[int, str]:
        answer = api.client.post("/jobs", json=SPEC, headers={"Idempotency-Key": "b"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert sorted(status for status, _ in answers) == [200] * 7 + [202]
    assert len({job_id for _, job_id in answers}) == 1
    assert len(api.client.get("/jobs").json()["data"]) == 1


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_verbs_are_done_once(api: Api) -> None:
    job = f"/jobs/{api.submit()['id']}"
    first, second = {"Idempotency-Key": "a"}, {"Idempotency-Key": "b"}
    paused = api.client.post(f"{job}/pause", headers=first)
    resumed = api.client.post(f"{job}/resume", headers=first)
    again = api.client.post(f"{job}/pause", headers=first)
    assert again.json() == paused.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert api.client.get(job).json()["status"] == "queued"
    cancelled = api.client.post(f"{job}/cancel", headers=first)
    answers = [api.client.post(f"{job}/{verb}", headers=first) for verb in ("resume", "cancel")]
    assert [answer.json() for answer in answers] == [resumed.json(), cancelled.json()]
    problem(api.client.post(f"{job}/resume", headers=second), 409, "invalid_state")
    made = api.client.post("/generate", json={"prompt": "a"}).json()["id"]
    ends = [api.client.post(f"/generations/{made}/cancel", headers=first) for _ in range(2)]
    assert [end.status_code for end in ends] == [200, 200]
    assert ends[0].json() == ends[1].json()


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_refused_request_leaves_its_key_free(api: Api) -> None:
    key = {"Idempotency-Key": "c"}
    wrong = SPEC | {"base_model": {"name": "shape"}}
    problem(api.client.post("/jobs", json=wrong, headers=key), 422, "unknown_name")
    assert api.client.post("/jobs", json=SPEC, headers=key).status_code == 202


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_repetition_is_answered_even_if_it_could_not_be_accepted_any_more(api: Api) -> None:
    prompts = PromptSet(prompts=("a",), sha256="0" * 64)
    row = api.database.transact(
        lambda session: prompt_sets.create(session, "default", "x", prompts)
    )
    key, spec = {"Idempotency-Key": "d"}, SPEC | {"prompts": {"id": row.id}}
    first = api.client.post("/jobs", json=spec, headers=key)
    api.client.post(f"/jobs/{first.json()['id']}/cancel")
    api.database.transact(lambda session: prompt_sets.remove(session, row.id, "default"))
    assert api.client.post("/jobs", json=spec, headers=key).json() == first.json()
    problem(api.client.post("/jobs", json=spec), 422, "invalid_value")


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_repetition_is_answered_even_if_its_adapter_is_gone(api: Api) -> None:
    found = adapter(api)
    body, headers = {"prompt": "a", "adapters": [{"id": found.id}]}, {"Idempotency-Key": "k2"}
    first = api.client.post("/generate", json=body, headers=headers)
    assert api.client.delete(f"/jobs/{found.job_id}").status_code == 204
    again = api.client.post("/generate", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    for other in ({"Idempotency-Key": "k3"}, {}):
        problem(api.client.post("/generate", json=body, headers=other), 404, "not_found")
    assert api.client.post(
        "/generate", json={"prompt": "a"}, headers={"Idempotency-Key": "k3"}
    ).is_success


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "path", ["/jobs", "/generate", "/jobs/job_00000000000000000000000000/rerun"]
)
@pytest.mark.parametrize("body", [b"a=1", b"{", b"\xff", b"1" * 5000, b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused_with_a_key_too(api: Api, path: str, body: bytes) -> None:
    headers = {"Idempotency-Key": "e", "content-type": "application/x-www-form-urlencoded"}
    problem(api.client.post(path, content=body, headers=headers), 400, "malformed")


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "é"])
def test_a_key_that_cannot_be_is_refused(api: Api, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    body = problem(api.client.post("/jobs", json=SPEC, headers=headers), 422, "invalid_request")
    assert body["errors"][0]["where"] == "header"
