"""What is decided before a body is read."""

from __future__ import annotations

from typing import Any, Final

import pytest
from starlette.types import Message

from api.auth import is_open
from api.limits import DEEPEST, MOST_JSON_BYTES
from store.api_keys import Scope, generate_key
from tests.api.conftest import Api, problem

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
JSON: Final = {"content-type": "application/json"}
OPEN: Final = {"/healthz", "/readyz", "/version", "/metrics", "/problems/{code}"}


def ask(api: Api, *headers: tuple[bytes, bytes]) -> tuple[list[Message], int]:
    """What a request with a body was answered, and how often its body was asked for."""
    read, sent = 0, []

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/jobs",
        "raw_path": b"/jobs",
        "query_string": b"",
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", b"2"),
            *headers,
        ],
    }
    assert api.client.portal is not None
    api.client.portal.call(api.app, scope, receive, send)
    return sent, read


def test_the_body_of_an_unknown_caller_is_never_read(api: Api) -> None:
    known = api.key()["Authorization"].encode()
    for headers in ((), ((b"x-api-key", generate_key().encode()),), ((b"x-api-key", b"x"),)):
        sent, read = ask(api, *headers)
        assert (sent[0]["status"], read) == (401, 0)
        answered = dict(sent[0]["headers"])
        assert answered[b"connection"] == b"close"
        assert answered[b"www-authenticate"] == b'Bearer realm="shortft"'
    sent, read = ask(api, (b"authorization", known))
    assert (sent[0]["status"], read >= 1) == (422, True)


def test_every_path_that_asks_for_no_key_is_known(api: Api) -> None:
    paths = api.app.openapi()["paths"]
    assert {path for path in paths if is_open(path)} == OPEN
    for path, item in paths.items():
        for operation in item.values():
            assert "security" in operation or path in OPEN, path
    for path in OPEN | {"/docs", "/docs/docs.js", "/openapi.json"}:
        assert is_open(path)
        assert is_open(f"/v1{path}")
    for path in ("/jobs", "/docs/../jobs", "/healthz/jobs", "/v1", "/v2/healthz", "/metrics\n"):
        assert not is_open(path)


def test_pictures_of_callers_without_the_scope_are_not_looked_at(api: Api) -> None:
    broken = {"content-type": "multipart/form-data; boundary=x", **api.key(Scope.JOBS_READ)}
    answer = api.client.post("/rewards/symmetry/score", content=b"--y", headers=broken)
    problem(answer, 403, "forbidden")


def test_a_json_body_has_a_limit_of_its_own(api: Api) -> None:
    large = b'"' + b"x" * (MOST_JSON_BYTES - 1) + b'"'
    body = problem(api.client.post("/jobs", content=large, headers=JSON), 413, "payload_too_large")
    assert body["detail"] == "a body may have 4000000 bytes"
    problem(api.client.post("/jobs", content=large[1:], headers=JSON), 400, "malformed")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * DEEPEST + b"]" * DEEPEST, "invalid_request"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "too_deep"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "too_deep"),
        (b"[" + b"[]," * 100 + b"[]]", "invalid_request"),
        (b'["' + b"[" * 100 + b'"]', "invalid_request"),
        (b'["\\"' + b"[" * 100 + b'"]', "invalid_request"),
        (b"][" * 100, "malformed"),
        # Of each, an expression that starts over at every quotation mark makes an hour.
        (b"[]" * 100 + b'"\\' * 1_900_000, "malformed"),
        (b"[]" * 100 + b'"' + b'\\"' * 1_900_000 + b"\\", "malformed"),
        (b"[[" * 40 + b'"' + b'\\"' * 1_900_000, "too_deep"),
    ],
)
def test_depth_is_what_is_outside_of_strings(api: Api, body: bytes, code: str) -> None:
    answer = api.client.post("/jobs", content=body, headers=JSON)
    problem(answer, answer.status_code, code)
