from __future__ import annotations

import json
from typing import Any, Final

import pytest
from sqlalchemy.exc import OperationalError

from api import errors
from api.problems import PROBLEMS, ProblemError
from shortft_core.errors import ArtifactError, ShortFTError, UserError
from store import jobs
from store.errors import BusyError, LostCommitError
from tests.api.conftest import SPEC, Api, problem

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
JSON: Final = {"content-type": "application/json"}


def test_every_code_has_a_page(api: Api) -> None:
    for code, kind in PROBLEMS.items():
        page = api.client.get(f"/problems/{code}").json()
        assert page == {
            "code": code,
            "status": kind.status,
            "title": kind.title,
            "remedy": kind.remedy,
        }
    problem(api.client.get("/problems/nothing"), 404, "not_found")


def test_unknown_paths_and_methods(api: Api) -> None:
    problem(api.client.get("/nothing"), 404, "not_found")
    job = api.submit()
    answer = api.client.put(f"/jobs/{job['id']}", json={})
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, PATCH"


BODIES: Final[list[tuple[bytes, dict[str, str], int, str]]] = [
    (b"{", JSON, 400, "malformed"),
    (b'{"a": "\xff"}', JSON, 400, "malformed"),
    (b"1" * 5000, JSON, 400, "malformed"),
    (b"[" * 65 + b"]" * 65, JSON, 400, "too_deep"),
    (b'{"a":' * 100_000, JSON, 400, "too_deep"),
    (b"", JSON, 422, "invalid_request"),
    (b"", {}, 422, "invalid_request"),
    (b"[]", JSON, 422, "invalid_request"),
    (b"null", JSON, 422, "invalid_request"),
    (b'"text"', JSON, 422, "invalid_request"),
    (b"NaN", JSON, 422, "invalid_request"),
    (b'{"\\ud800": 1}', JSON, 422, "invalid_request"),
    (b"a=1", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    (b"a: 1", {"content-type": "application/yaml"}, 415, "unsupported_media_type"),
    (b"{}", {}, 415, "unsupported_media_type"),
]


def test_bodies_that_are_no_specification(api: Api) -> None:
    for path in ("/jobs", "/jobs/validate"):
        for body, headers, status, code in BODIES:
            problem(api.client.post(path, content=body, headers=headers), status, code)


def test_brackets_within_text_are_no_nesting(api: Api) -> None:
    spec = SPEC | {"prompts": {"inline": ['[{"' * 100, "\\[[[[" * 40]}}
    assert api.client.post("/jobs", json=spec).status_code == 202


VALUES: Final[list[dict[str, Any]]] = [
    {"seed": 10**400},
    {"seed": -1},
    {"seed": 1.5},
    {"seed": "x"},
    {"seed": None},
    {"name": "x" * 201},
    {"name": ["x"]},
    {"metadata": {"a": {"b": 1}}},
    {"method": {"type": "draft_k", "learning_rate": 1e400}},
    {"method": {"type": "draft_k", "updates": -1}},
    {"method": {"type": {"a": 1}}},
    {"method": "draft_k"},
    {"rewards": {}},
    {"rewards": []},
    {"base_model": {"id": "../../etc/passwd"}},
    {"base_model": {"path": "../../etc/passwd"}},
    {"base_model": {"path": "\0"}},
    {"kind": "other"},
    {"kind": ["align"]},
    {"__class__": "x"},
]


def test_values_of_all_wrong_kinds(api: Api) -> None:
    for change in VALUES:
        body = json.dumps(SPEC | change)
        answer = api.client.post("/jobs", content=body, headers=JSON)
        assert answer.status_code == 422, (change, answer.text)
        assert answer.json()["errors"], change
        assert "passwd" not in answer.text.replace("../../etc/passwd", ""), change


TEXTS: Final[list[tuple[dict[str, Any], str]]] = [
    ({"name": "a\0b"}, "name"),
    ({"prompts": {"inline": ["a", "a \0 b"]}}, "prompts.inline.1"),
    ({"prompts": {"inline": ["a"], "split": "all"}, "name": "\0"}, "name"),
    ({"evaluation": {"held_out": ["\0"]}}, "evaluation.held_out.0"),
    ({"metadata": {"a\0": "b"}}, "metadata"),
    ({"prompts": {"name": "shapes-train\0"}}, "prompts.name"),
    ({"base_model": {"name": "sha\0pes"}}, "base_model.name"),
]


def test_text_that_no_database_holds_is_refused_wherever_it_stands(api: Api) -> None:
    for change, param in TEXTS:
        body = problem(api.client.post("/jobs", json=SPEC | change), 422, "invalid_value")
        assert body["param"] == param
        assert "NUL" in body["detail"]
    for change, code in (
        ({"name": "\ud800"}, "invalid_request"),
        ({"metadata": {"\udfff": "a"}}, "invalid_value"),
    ):
        answer = api.client.post("/jobs", content=json.dumps(SPEC | change), headers=JSON)
        problem(answer, 422, code)
    assert api.client.get("/jobs").json()["data"] == []


def test_a_path_writes_no_lines_into_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "api.access")
    forged = "/jobs/job_1%0AINFO%20all%20is%20well%E2%80%A8"
    problem(api.client.get(forged), 404, "not_found")
    assert "\n" not in caplog.records[-1].getMessage()
    assert caplog.records[-1].getMessage().startswith(f"GET {forged} ")
    logged = len(caplog.records)
    errors.unexpected({"method": "GET", "path": "/a\nb\ud800"}, RuntimeError("x"))
    assert caplog.records[logged].getMessage() == "GET /a%0Ab%5Cud800 failed"


def test_a_fault_is_logged_and_not_told(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(jobs, "page", fail)
    answer = api.client.get("/jobs", headers={"X-Request-ID": "mine-1"})
    body = problem(answer, 500, "internal")
    assert body["request_id"] == "mine-1"
    assert "42" not in answer.text
    assert "the secret is 42" in caplog.text


FAILURES: Final[list[tuple[Exception, int, str]]] = [
    (BusyError("x"), 503, "unavailable"),
    (LostCommitError("x"), 503, "unavailable"),
    (OperationalError("SELECT secret", {}, Exception("away")), 503, "unavailable"),
    (ArtifactError("there is no artifact jobs/secret"), 410, "gone"),
    (UserError("a.b", "it is wrong", "Correct it"), 422, "invalid_value"),
    (ShortFTError("secret"), 500, "internal"),
]


def test_errors_of_the_rooms_below(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status, code in FAILURES:

        def fail(*_: object, raised: Exception = error, **__: object) -> None:
            raise raised

        monkeypatch.setattr(jobs, "page", fail)
        answer = api.client.get("/jobs")
        problem(answer, status, code)
        assert "secret" not in answer.text
        assert ("retry-after" in answer.headers) == (status == 503)


def test_the_database_away_is_503(api: Api) -> None:
    api.database.close()
    api.service.store_settings.data_dir.joinpath("shortft.db").rename(
        api.service.store_settings.data_dir / "elsewhere.db"
    )
    problem(api.client.get("/jobs"), 503, "unavailable")


def test_only_codes_of_the_table_are_used(api: Api) -> None:
    used = {*errors._CODES.values(), *errors._HTTP_CODES.values(), *errors._RETRY_SECONDS}
    assert used <= set(PROBLEMS)
    assert str(ProblemError("gone", "why")) == "why"
