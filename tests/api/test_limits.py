from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.conftest import SPEC, Api, Opened, problem

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
JSON = {"content-type": "application/json"}


def test_a_body_has_a_limit_whether_its_length_is_declared_or_not(open_api: Opened) -> None:
    api = open_api(max_body_mb=0.01)
    large = b'"' + b"x" * 10_000 + b'"'
    body = problem(api.client.post("/jobs", content=large, headers=JSON), 413, "payload_too_large")
    assert body["detail"] == "a body may have 10000 bytes"

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(large), 1000):
            yield large[start : start + 1000]

    for headers in (JSON, {"content-type": "multipart/form-data; boundary=x"}, {}):
        answer = api.client.post("/jobs", content=chunks(), headers=headers)
        problem(answer, 413, "payload_too_large")
    assert api.client.post("/jobs", json=SPEC).status_code == 202


@pytest.mark.parametrize("length", ["x", "-1", "9" * 5000, "²"])
def test_a_length_that_is_none_is_refused(api: Api, length: str) -> None:
    headers = [
        (b"content-length", length.encode("latin-1")),
        (b"content-type", b"application/json"),
    ]
    answer = api.client.post("/jobs", content=b"{}", headers=headers)
    assert answer.status_code in {400, 413}
    assert answer.headers["content-type"] == "application/problem+json"


def test_requests_are_counted_by_key(open_api: Opened) -> None:
    api = open_api(requests_per_minute=3)
    mine, other = api.key(), api.key()
    left = [api.client.get("/jobs", headers=mine).headers["ratelimit"] for _ in range(3)]
    assert [text.split(";")[1] for text in left] == ["r=2", "r=1", "r=0"]
    answer = api.client.get("/jobs", headers=mine)
    problem(answer, 429, "rate_limited")
    assert answer.headers["ratelimit-policy"] == '"default";q=3;w=60'
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert api.client.get("/jobs", headers=other).status_code == 200


@pytest.mark.parametrize("given", ["mine-1", "a:b.c_D-9"])
def test_a_harmless_request_id_is_kept(api: Api, given: str) -> None:
    assert api.client.get("/jobs", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "<script>"])
def test_any_other_request_id_is_replaced(api: Api, given: str) -> None:
    headers = [(b"x-request-id", given.encode("latin-1"))]
    made = api.client.get("/jobs", headers=headers).headers["x-request-id"]
    assert made.startswith("req_")
    assert len(made) == 36
