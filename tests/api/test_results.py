from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import pytest

from shortft_core.events import CheckpointSaved, Picture, SamplePair, SamplesReady
from store import results
from store.objects import StoredObject
from store.results import NewArtifact
from tests.api.conftest import Api, problem

CONTENT: Final = bytes(range(256)) * 1200
NAME: Final = 'weights "ü"\r\nX: 1.safetensors'


def store(api: Api, key: str, data: bytes) -> StoredObject:
    return StoredObject(key, api.service.objects.write(key, data), len(data))


def finish(api: Api, artifacts: Sequence[NewArtifact]) -> str:
    job_id: str = api.submit()["id"]
    lease = api.claim().lease
    api.database.transact(lambda session: results.succeed(session, lease, artifacts))
    return job_id


@pytest.fixture
def url(api: Api) -> str:
    """Where the one file of a finished job is."""
    stored = store(api, "jobs/x/artifacts/t1/weights", CONTENT)
    job_id = finish(api, [NewArtifact(kind="branch_1", filename=NAME, stored=stored)])
    (listed,) = api.client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert listed["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert listed["size_bytes"] == len(CONTENT)
    assert api.client.get(f"/jobs/{job_id}").json()["result"]["artifacts"] == [listed]
    found: str = listed["url"]
    return found


def test_a_file_is_downloaded_whole(api: Api, url: str) -> None:
    answer = api.client.get(url)
    assert answer.content == CONTENT
    assert answer.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="weights ___')
    assert "\r" not in disposition
    assert disposition.endswith("filename*=UTF-8''weights%20%22%C3%BC%22%0D%0AX%3A%201.safetensors")


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_file_is_downloaded_in_ranges(api: Api, url: str) -> None:
    size = len(CONTENT)
    ranges = {
        "bytes=0-0": (0, 1),
        "bytes=10-19": (10, 20),
        f"bytes={size - 5}-": (size - 5, size),
        "bytes=-7": (size - 7, size),
        f"bytes=-{size * 2}": (0, size),
        f"bytes=300000-{size * 9}": (300_000, size),
    }
    for given, (start, stop) in ranges.items():
        answer = api.client.get(url, headers={"Range": given})
        assert answer.status_code == 206, given
        assert answer.content == CONTENT[start:stop]
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert answer.headers["content-length"] == str(stop - start)
    for given in ("bytes=5-4", "bytes=0-1,3-4", "items=0-1", "bytes=-", "bytes=x-", "bytes"):
        answer = api.client.get(url, headers={"Range": given})
        assert (answer.status_code, answer.content) == (200, CONTENT), given
    for given in (f"bytes={size}-", f"bytes={10**17}-", "bytes=-0"):
        answer = api.client.get(url, headers={"Range": given})
        problem(answer, 416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_client_may_look_before_it_downloads(api: Api, url: str) -> None:
    whole, head = api.client.get(url), api.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges", "content-disposition"):
        assert head.headers[name] == whole.headers[name], name
    part = api.client.head(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.headers["content-length"]) == (200, str(len(CONTENT)))
    known = {"If-None-Match": head.headers["etag"]}
    assert api.client.head(url, headers=known).status_code == 304
    api.service.objects.delete("jobs/x/artifacts/t1/weights")
    assert api.client.head(url).status_code == 410


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_what_a_client_has_is_not_sent_again(api: Api, url: str) -> None:
    tag = api.client.get(url).headers["etag"]
    for given in (tag, f'"x", W/{tag}', "*"):
        answer = api.client.get(url, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b""), given
    part = {"Range": "bytes=0-3"}
    assert api.client.get(url, headers=part | {"If-Range": tag}).status_code == 206
    assert api.client.get(url, headers=part | {"If-Range": '"x"'}).status_code == 200


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_bytes_that_are_gone_are_told_without_their_key(api: Api, url: str) -> None:
    api.service.objects.delete("jobs/x/artifacts/t1/weights")
    body = problem(api.client.get(url), 410, "gone")
    assert "artifacts/t1" not in str(body)


def test_a_file_belongs_to_its_job(api: Api, url: str) -> None:
    other = api.submit()["id"]
    artifact = url.split("/")[4]
    problem(api.client.get(f"/jobs/{other}/artifacts/{artifact}/content"), 404, "not_found")
    for wrong in ("art_00000000000000000000000000", "%00", "x"):
        answer = api.client.get(f"/jobs/{other}/artifacts/{wrong}/content")
        problem(answer, 404, "not_found")


def test_the_report_is_a_page_that_loads_nothing(api: Api) -> None:
    stored = store(api, "jobs/x/artifacts/t1/report.html", b"<!doctype html>")
    job_id = finish(api, [NewArtifact(kind="report", filename="report.html", stored=stored)])
    answer = api.client.get(f"/jobs/{job_id}/report")
    assert answer.content == b"<!doctype html>"
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["content-disposition"].startswith("inline")
    head = api.client.head(f"/jobs/{job_id}/report")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == answer.headers["content-length"]
    unfinished = api.submit()["id"]
    body = problem(api.client.get(f"/jobs/{unfinished}/report"), 409, "no_report")
    assert body["current_status"] == "queued"


def test_checkpoints_and_pictures_are_seen_while_a_job_runs(api: Api) -> None:
    job_id = api.submit()["id"]
    lease = api.claim().lease
    base, tuned = (store(api, f"jobs/{job_id}/samples/{name}.png", name.encode()) for name in "ab")
    pair = SamplePair(
        prompt="a red circle",
        seed=7,
        base=Picture(key=base.key, scores={"symmetry": -1.0}),
        tuned=Picture(key=tuned.key, scores={"symmetry": -0.5}),
    )
    stored = {base.key: base, tuned.key: tuned}
    ready = SamplesReady(update=2, pairs=(pair,))
    saved = CheckpointSaved(update=2, key="jobs/x/state", sha256="0" * 64, size_bytes=9)
    api.database.transact(lambda session: results.add_samples(session, lease, ready, stored))
    api.database.transact(lambda session: results.add_checkpoint(session, lease, saved))
    path = f"/jobs/{job_id}"
    rows = api.client.get(f"{path}/samples").json()["data"]
    assert [(row["kind"], row["prompt"], row["seed"]) for row in rows] == [
        ("base", "a red circle", 7),
        ("tuned", "a red circle", 7),
    ]
    assert [row["scores"]["symmetry"] for row in rows] == [-1.0, -0.5]
    picture = api.client.get(rows[1]["url"])
    assert (picture.content, picture.headers["content-type"]) == (b"b", "image/png")
    only = api.client.get(f"{path}/samples?kind=tuned&update=2&pair_index=0").json()["data"]
    assert only == rows[1:]
    assert api.client.get(f"{path}/samples?update=3").json()["data"] == []
    other = api.submit()["id"]
    problem(api.client.get(f"/jobs/{other}/samples/{rows[0]['id']}/content"), 404, "not_found")
    (checkpoint,) = api.client.get(f"{path}/checkpoints").json()["data"]
    assert (checkpoint["update"], checkpoint["size_bytes"]) == (2, 9)
    assert checkpoint["reference"] == f"{job_id}@2"
    assert "object_key" not in checkpoint
