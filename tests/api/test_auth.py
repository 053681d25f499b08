from __future__ import annotations

import pytest

from api.loopback import is_loopback
from store.api_keys import Scope, generate_key
from tests.api.conftest import SPEC, Api, Opened, problem

sqlite = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


@sqlite
def test_without_keys_this_machine_is_served(api: Api) -> None:
    assert api.client.get("/jobs").status_code == 200
    assert api.client.get("/jobs", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    assert api.client.get("/jobs", headers={"Host": "[::1]:8000"}).status_code == 200


@sqlite
def test_without_keys_nobody_else_is_served(open_api: Opened) -> None:
    api = open_api(host="192.0.2.7")
    answer = api.client.get("/jobs")
    body = problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "shortft keys create" in body["detail"]


@sqlite
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Host": "["},
        {"Host": "[::1"},
        {"Origin": "http://["},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_without_keys_pages_of_others_are_refused(api: Api, headers: dict[str, str]) -> None:
    problem(api.client.get("/jobs", headers=headers), 403, "untrusted_host")


def test_from_the_first_key_on_one_is_needed(api: Api) -> None:
    key = api.key()["Authorization"].split()[1]
    answer = api.client.get("/jobs")
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="shortft"'
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
        assert api.client.get("/jobs", headers=headers).status_code == 200
        elsewhere = headers | {"Host": "shortft.example"}
        assert api.client.get("/jobs", headers=elsewhere).status_code == 200


def test_keys_that_open_nothing(api: Api) -> None:
    api.key()
    unknown = generate_key()
    mistyped = f"{unknown[:-1]}{'a' if unknown[-1] != 'a' else 'b'}"
    for given, detail in [
        (unknown, "the API key is unknown, expired or revoked"),
        (mistyped, "the API key is mistyped"),
        ("x", "the API key is mistyped"),
        ("\x01", "the API key is mistyped"),
        ("é" * 10_000, "the API key is mistyped"),
    ]:
        headers = [(b"authorization", f"Bearer {given}".encode("latin-1"))]
        body = problem(api.client.get("/jobs", headers=headers), 401, "unauthenticated")
        assert body["detail"] == detail
    for scheme in ("Basic abc", "Bearer", ""):
        answer = api.client.get("/jobs", headers={"Authorization": scheme})
        problem(answer, 401, "unauthenticated")


@sqlite
def test_a_key_opens_what_its_scopes_say(api: Api) -> None:
    read, write = api.key(Scope.JOBS_READ), api.key(Scope.JOBS_WRITE)
    assert api.client.get("/jobs", headers=read).status_code == 200
    body = problem(api.client.post("/jobs", json=SPEC, headers=read), 403, "forbidden")
    assert body["detail"] == "the key has no scope jobs:write"
    assert api.client.post("/jobs", json=SPEC, headers=write).status_code == 202
    problem(api.client.get("/jobs", headers=write), 403, "forbidden")
    problem(api.client.get("/api-keys", headers=read), 403, "forbidden")


@sqlite
def test_who_may_not_ask_learns_nothing_about_the_request(api: Api) -> None:
    api.key()
    problem(api.client.post("/jobs", json={"seed": "x"}), 401, "unauthenticated")
    problem(api.client.get("/jobs/x"), 401, "unauthenticated")


def test_keys_are_made_listed_and_ended(api: Api) -> None:
    admin, other = api.key(Scope.ADMIN), api.key(Scope.ADMIN, project="b")
    wanted = {"name": "ci", "scopes": ["jobs:read"], "expires_in_days": 1}
    answer = api.client.post("/api-keys", json=wanted, headers=admin)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    key = {"X-API-Key": made["key"]}
    assert made["last_characters"] == made["key"][-4:]
    assert api.client.get("/jobs", headers=key).status_code == 200
    listed = api.client.get("/api-keys", headers=admin)
    assert [row["name"] for row in listed.json()["data"]] == ["ci", "test"]
    assert made["key"] not in listed.text
    path = f"/api-keys/{made['id']}"
    problem(api.client.delete(path, headers=other), 404, "not_found")
    assert api.client.delete(path, headers=admin).status_code == 204
    problem(api.client.get("/jobs", headers=key), 401, "unauthenticated")


@sqlite
@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"name": "", "scopes": ["admin"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "\0", "scopes": ["admin"]},
        {"name": "x", "scopes": ["admin"], "expires_in_days": 10**9},
        {"name": "x", "scopes": ["admin"], "project": "b"},
    ],
)
def test_a_key_that_cannot_be_is_refused(api: Api, wanted: dict[str, object]) -> None:
    problem(api.client.post("/api-keys", json=wanted), 422, "invalid_request")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.example"])  # noqa: S104
def test_names_of_other_machines(host: str) -> None:
    assert not is_loopback(host)
