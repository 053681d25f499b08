"""How much unfinished work of one API key the queue of generations holds."""

from __future__ import annotations

import pytest

from store.api_keys import Scope
from tests.api.conftest import Api, Opened, problem
from tests.api.works import png, serve

PROMPT = {"prompt": "a red circle"}
SCORE = "/rewards/symmetry/score"
SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
"""For what no database sees."""


def score(api: Api, key: dict[str, str]) -> int:
    answer = api.client.post(SCORE, files={"images": ("a.png", png())}, headers=key)
    return answer.status_code


def test_a_key_has_a_quota_of_unfinished_generations(open_api: Opened) -> None:
    api = open_api(most_open_generations=2)
    key, other = api.key(Scope.GENERATE), api.key(Scope.GENERATE)
    first = api.client.post("/generate", json=PROMPT, headers=key).json()["id"]
    assert score(api, key) == 202
    answer = api.client.post("/generate", json=PROMPT, headers=key)
    body = problem(answer, 429, "quota_exceeded")
    assert body["detail"] == "2 of 2 generations of this key are unfinished"
    assert (body["limit"], body["used"], answer.headers["retry-after"]) == (2, 2, "30")
    assert score(api, key) == 429
    assert api.client.post("/generate", json=PROMPT, headers=other).status_code == 202
    assert api.client.post(f"/generations/{first}/cancel", headers=key).status_code == 200
    assert api.client.post("/generate", json=PROMPT, headers=key).status_code == 202
    assert score(api, key) == 429


@SQLITE
def test_finished_generations_do_not_count(open_api: Opened) -> None:
    api = open_api(most_open_generations=1)
    key = api.key()
    for _ in range(2):
        assert api.client.post("/generate", json=PROMPT, headers=key).status_code == 202
        serve(api)
    assert api.client.post("/generate", json=PROMPT, headers=key).status_code == 202


def test_a_repetition_is_never_refused(open_api: Opened) -> None:
    api = open_api(most_open_generations=1)
    key = api.key()
    headers = key | {"Idempotency-Key": "k"}
    first = api.client.post("/generate", json=PROMPT, headers=headers)
    again = api.client.post("/generate", json=PROMPT, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    # What is refused leaves its key free: the same request may be sent again.
    late = key | {"Idempotency-Key": "late"}
    problem(api.client.post("/generate", json=PROMPT, headers=late), 429, "quota_exceeded")
    api.client.post(f"/generations/{first.json()['id']}/cancel", headers=key)
    assert api.client.post("/generate", json=PROMPT, headers=late).status_code == 202


@SQLITE
def test_jobs_and_generations_have_quotas_of_their_own(open_api: Opened) -> None:
    api = open_api(most_open_generations=1, most_open_jobs=1)
    key = api.key()
    assert api.client.post("/generate", json=PROMPT, headers=key).status_code == 202
    job = {
        "base_model": {"name": "shapes"},
        "method": {"type": "draft_k", "updates": 3},
        "rewards": [{"name": "symmetry"}],
        "prompts": {"name": "shapes-train"},
    }
    assert api.client.post("/jobs", json=job, headers=key).status_code == 202
    problem(api.client.post("/generate", json=PROMPT, headers=key), 429, "quota_exceeded")


@SQLITE
def test_without_keys_nothing_is_counted(open_api: Opened) -> None:
    api = open_api(most_open_generations=1)
    for _ in range(3):
        assert api.client.post("/generate", json=PROMPT).status_code == 202
