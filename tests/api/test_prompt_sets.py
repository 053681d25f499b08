from __future__ import annotations

import hashlib
from typing import Any

import pytest

from api import submit
from store import leases
from store.api_keys import Scope
from store.leases import NOTHING_SAID
from tests.api.conftest import SPEC, Api, problem

SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
UNKNOWN = "ps_00000000000000000000000000"


def upload(api: Api, filename: str, data: bytes, /, **fields: str) -> Any:
    return api.client.post("/prompt-sets", files={"file": (filename, data)}, data=fields)


def test_every_format_gives_the_same_set(api: Api) -> None:
    expected = hashlib.sha256("a cat\nein Hügel\na cat\n".encode()).hexdigest()
    uploads = {
        "one.txt": "a cat\n\nein Hügel\na  cat\n".encode(),
        "two.csv": 'prompt,n\na cat,1\n"ein Hügel",2\na cat,3\n'.encode(),
        "three.tsv": "n\tprompt\n1\ta cat\n2\tein Hügel\n3\ta cat\n".encode(),
        "four.json": '["a cat", "ein Hügel", "a cat"]'.encode(),
        "five.jsonl": b'{"prompt": "a cat"}\n{"prompt": "ein H\\u00fcgel"}\n"a cat"\n',
    }
    for name, data in uploads.items():
        answer = upload(api, name, data)
        assert answer.status_code == 201, answer.text
        found = answer.json()
        assert (found["sha256"], found["count"], found["duplicates"]) == (expected, 3, 1), name
        assert found["name"] == name.partition(".")[0]
        assert answer.headers["location"] == f"/prompt-sets/{found['id']}"
    listed = {"name": "six", "prompts": ["a cat", "ein Hügel", "a cat"]}
    found = api.client.post("/prompt-sets", json=listed).json()
    assert (found["sha256"], found["origin"], found["empties"]) == (expected, "uploaded", 0)
    assert upload(api, "x.txt", b"a\n\nb\n").json()["empties"] == 1


def test_a_job_may_name_it(api: Api) -> None:
    found = upload(api, "one.txt", b"a cat\na dog\n").json()
    job = api.submit(prompts={"id": found["id"]})
    assert job["spec"]["prompts"]["id"] == found["id"]


def test_prompts_page_by_page(api: Api) -> None:
    found = upload(api, "one.csv", b"text\na\nb\nc\n", column="text", name="letters").json()
    url = f"/prompt-sets/{found['id']}"
    assert api.client.get(url).json()["name"] == "letters"
    page = api.client.get(f"{url}/prompts?offset=1&limit=1").json()
    assert page["data"] == [{"index": 1, "text": "b"}]
    assert (page["total"], page["has_more"]) == (3, True)
    assert api.client.get(f"{url}/prompts?offset=2").json()["has_more"] is False
    assert api.client.get(f"{url}/prompts?offset=9").json()["data"] == []


@SQLITE
def test_sets_of_the_catalog_are_read_by_name(api: Api) -> None:
    found = api.client.get("/prompt-sets/shapes-eval").json()
    assert (found["origin"], found["count"], found["licence"]) == ("catalog", 256, "Apache-2.0")
    page = api.client.get("/prompt-sets/shapes-eval/prompts?limit=2").json()
    assert (len(page["data"]), page["total"]) == (2, 256)
    absent = api.client.get("/prompt-sets/partiprompts").json()
    assert (absent["count"], absent["sha256"]) == (None, None)
    problem(api.client.get("/prompt-sets/partiprompts/prompts"), 422, "invalid_value")


def test_lists_end_with_the_catalog(api: Api) -> None:
    ids = [upload(api, f"{n}.txt", b"a\n").json()["id"] for n in range(3)]
    first = api.client.get("/prompt-sets?limit=2").json()
    assert [item["id"] for item in first["data"]] == [ids[2], ids[1]]
    last = api.client.get(f"/prompt-sets?limit=2&after={first['last_id']}").json()
    assert [item["id"] for item in last["data"][:2]] == [ids[0], "shapes-train"]
    assert (last["last_id"], last["has_more"]) == (ids[0], False)


def test_names_are_taken_once_in_a_project(api: Api) -> None:
    assert upload(api, "one.txt", b"a\n").status_code == 201
    refused = problem(upload(api, "one.txt", b"b\n"), 409, "name_taken")
    assert refused["param"] == "name"
    headers = api.key(project="other")
    body = {"name": "one", "prompts": ["a"]}
    assert api.client.post("/prompt-sets", json=body, headers=headers).status_code == 201


def test_names_of_files_are_titles_never_paths(api: Api) -> None:
    for given, name in (
        ("../../etc/cron.d/evil.txt", "evil"),
        ("C:\\windows\\evil2.csv", "evil2"),
        ("..txt", "."),
        ("/", None),
    ):
        answer = upload(api, given, b"prompt\na\n")
        if name is None:
            problem(answer, 422, "invalid_value")
        else:
            assert answer.json()["name"] == name


def test_what_is_no_prompt_set(api: Api) -> None:
    uploads: list[tuple[str, bytes, dict[str, str]]] = [
        ("a.pdf", b"%PDF", {}),
        ("a.txt", b"", {}),
        ("a.txt", b"\n\n", {}),
        ("a.txt", b"a\xffb\n", {}),
        ("a.txt", b"a\0b\n", {}),
        ("a.json", b'["a\\u0000b"]', {}),
        ("a.json", b'["\\ud800"]', {}),
        ("a.json", b"[" * 100_000, {}),
        ("a.json", b'{"a": 1}', {}),
        ("a.csv", b"prompt\na\n", {"column": "text"}),
        ("a.txt", b"x" * 4001, {}),
        ("a.txt", b"a\n" * 100_001, {}),
        ("a.txt", b"a\n", {"evil": "1"}),
        ("a.txt", b"a\n" * 5_000_001, {}),
    ]
    for name, data, fields in uploads:
        problem(upload(api, name, data, **fields), 422, "invalid_value")
    refused = problem(upload(api, "a.txt", b"a\n", name="x\0"), 422, "invalid_request")
    assert refused["errors"][0]["pointer"] == "/name"
    body = {"name": "x", "prompts": "a", "path": "/etc/passwd"}
    refused = problem(api.client.post("/prompt-sets", json=body), 422, "invalid_request")
    assert {mistake["pointer"] for mistake in refused["errors"]} == {"/prompts", "/path"}
    listed = api.client.get("/prompt-sets").json()["data"]
    assert {item["origin"] for item in listed} == {"catalog"}


@SQLITE
def test_bodies_beyond_the_limit_are_refused(api: Api) -> None:
    answer = upload(api, "a.txt", b"x" * 33_000_000)
    problem(answer, 413, "payload_too_large")


def test_forget(api: Api) -> None:
    found = upload(api, "one.txt", b"a\n").json()
    url = f"/prompt-sets/{found['id']}"
    key, other = api.key(Scope.JOBS_READ), api.key(project="other")
    problem(api.client.delete(url, headers=key), 403, "forbidden")
    problem(api.client.delete(url, headers=other), 404, "not_found")
    problem(api.client.get(url, headers=other), 404, "not_found")
    problem(api.client.get(f"{url}/prompts", headers=other), 404, "not_found")
    owner = api.key()
    assert api.client.delete(url, headers=owner).status_code == 204
    for gone in (url, f"/prompt-sets/{UNKNOWN}", "/prompt-sets/shapes-evil"):
        problem(api.client.get(gone, headers=owner), 404, "not_found")
    problem(api.client.delete("/prompt-sets/shapes-eval", headers=owner), 404, "not_found")


@pytest.mark.parametrize("kind", ["align", "distil"])
def test_a_set_is_kept_while_an_unfinished_job_names_it(api: Api, kind: str) -> None:
    tuned, held_out = (upload(api, f"{n}.txt", b"a\nb\n").json()["id"] for n in range(2))
    free = upload(api, "free.txt", b"a\n").json()["id"]
    spec = {
        "kind": kind,
        "base_model": {"name": "shapes"},
        "prompts": {"id": tuned},
        "evaluation": {"prompts": {"id": held_out}},
    } | ({k: SPEC[k] for k in ("method", "rewards")} if kind == "align" else {})
    job = api.client.post("/jobs", json=spec).json()
    assert (job["prompt_set"], job["eval_prompt_set"]) == (tuned, held_out)
    for verb in ("pause", "resume"):
        for row_id in (tuned, held_out):
            refused = problem(api.client.delete(f"/prompt-sets/{row_id}"), 409, "in_use")
            assert refused["job_id"] == job["id"]
            assert job["id"] in refused["detail"]
            assert api.client.get(f"/prompt-sets/{row_id}/prompts").json()["total"] == 2
        api.client.post(f"/jobs/{job['id']}/{verb}")
    assert api.client.delete(f"/prompt-sets/{free}").status_code == 204
    api.client.post(f"/jobs/{job['id']}/cancel")
    for row_id in (tuned, held_out):
        assert api.client.delete(f"/prompt-sets/{row_id}").status_code == 204
        problem(api.client.delete(f"/prompt-sets/{row_id}"), 404, "not_found")


def test_a_job_whose_set_goes_while_it_is_checked_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_id = upload(api, "one.txt", b"a\n").json()["id"]

    def checked_too_early(*asked: Any) -> Any:
        complete = submit.resolved(*asked)
        assert api.client.delete(f"/prompt-sets/{row_id}").status_code == 204
        return complete

    monkeypatch.setattr("api.routes.jobs.resolved", checked_too_early)
    refused = problem(
        api.client.post("/jobs", json=SPEC | {"prompts": {"id": row_id}}), 422, "invalid_value"
    )
    assert refused["param"] == "prompts.id"
    assert row_id in refused["detail"]
    assert api.client.get("/jobs").json()["data"] == []


def test_a_job_that_began_is_run_again_without_its_set(api: Api) -> None:
    row_id = upload(api, "one.txt", b"a\n").json()["id"]
    began = api.submit(prompts={"id": row_id})["id"]
    lease = api.claim().lease
    api.database.transact(lambda session: leases.fail(session, lease, NOTHING_SAID))
    waiting = api.submit(prompts={"id": row_id})["id"]
    api.client.post(f"/jobs/{waiting}/cancel")
    assert api.client.delete(f"/prompt-sets/{row_id}").status_code == 204
    again = api.client.post(f"/jobs/{began}/rerun")
    assert again.status_code == 202
    problem(api.client.delete(f"/prompt-sets/{row_id}"), 404, "not_found")
    # Its prompts lie with the first job until it begins.
    problem(api.client.delete(f"/jobs/{began}"), 409, "invalid_state")
    api.client.post(f"/jobs/{again.json()['id']}/cancel")
    assert api.client.delete(f"/jobs/{began}").status_code == 204
    refused = problem(api.client.post(f"/jobs/{waiting}/rerun"), 422, "invalid_value")
    assert refused["param"] == "prompts.id"


def test_a_repeated_upload_is_answered_like_the_first(api: Api) -> None:
    body, headers = {"name": "again", "prompts": ["a", "a"]}, {"Idempotency-Key": "k"}
    first = api.client.post("/prompt-sets", json=body, headers=headers)
    again = api.client.post("/prompt-sets", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    problem(api.client.post("/prompt-sets", json=body), 409, "name_taken")
    other = body | {"prompts": ["b"]}
    refused = api.client.post("/prompt-sets", json=other, headers=headers)
    problem(refused, 422, "idempotency_key_reused")
