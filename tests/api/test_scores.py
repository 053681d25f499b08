from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from api.score_request import score_term
from shortft_core.spec.generation import ScoreSpec
from store import generations
from store.models import Generation
from tests.api.conftest import Api, problem
from tests.api.works import png, serve

URL = "/rewards/symmetry/score"


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("../../evil.sh", data)) for data in pictures]


def row(api: Api, generation_id: str) -> Generation:
    with api.database.read() as session:
        return generations.get(session, generation_id, "default")


def test_uploads_are_stored_and_queued(api: Api) -> None:
    answer = api.client.post(URL, files=files(png(), png(shade=9)), data={"prompt": "a ring"})
    assert answer.status_code == 202, answer.text
    generation_id = answer.json()["id"]
    assert answer.headers["location"] == f"/generations/{generation_id}"
    found = row(api, generation_id)
    spec = ScoreSpec.model_validate(found.request)
    assert (found.kind, found.batch_key) == ("score", spec.batch_key())
    assert [term.name for term in spec.rewards] == ["symmetry"]
    assert [image.prompt for image in spec.images] == ["a ring", "a ring"]
    keys = [image.key for image in spec.images]
    assert keys == [f"uploads/{generation_id}/{index:02d}.png" for index in range(2)]
    for image, data in zip(spec.images, (png(), png(shade=9)), strict=True):
        assert api.service.objects.read(image.key, sha256=image.sha256) == data
    assert "uploads/" not in answer.text


def test_generated_pictures_are_scored_under_their_own_prompts(api: Api) -> None:
    api.client.post("/generate", json={"prompts": ["a", "b"]})
    done = serve(api)
    images = api.client.get(f"/generations/{done.id}").json()["images"]
    body: dict[str, Any] = {"image_ids": [image["id"] for image in images], "source": "shapes"}
    for more, prompts in (
        ({}, ["a", "b"]),
        ({"prompt": "c"}, ["c", "c"]),
        ({"prompts": ["d", "e"]}, ["d", "e"]),
    ):
        answer = api.client.post("/rewards/hps_v2/score", json=body | more)
        spec = ScoreSpec.model_validate(row(api, answer.json()["id"]).request)
        assert [image.prompt for image in spec.images] == prompts
        assert [image.sha256 for image in spec.images] == [image["sha256"] for image in images]
        assert str(getattr(spec.rewards[0], "source", None)) == "shapes"
    other = api.key(project="other")
    problem(api.client.post("/rewards/hps_v2/score", json=body, headers=other), 404, "not_found")


def test_weights_are_chosen_by_name(api: Api) -> None:
    assert str(getattr(score_term("hps_v2", None), "source", None)) == "official"
    answer = api.client.post("/rewards/hps_v2/score", files=files(png()), data={"source": "shapes"})
    spec = ScoreSpec.model_validate(row(api, answer.json()["id"]).request)
    assert str(getattr(spec.rewards[0], "source", None)) == "shapes"
    for url, source, code in (
        ("/rewards/hps_v2/score", "shapez", "unknown_name"),
        (URL, "shapes", "invalid_value"),
    ):
        answer = api.client.post(url, files=files(png()), data={"source": source})
        problem(answer, 422, code)
    body = {"image_ids": [f"img_{'0' * 26}"], "source": {"path": "/etc/passwd"}}
    problem(api.client.post(URL, json=body), 422, "invalid_value")


def test_an_unknown_reward_names_the_nearest(api: Api) -> None:
    refused = problem(
        api.client.post("/rewards/symetry/score", files=files(png())), 404, "not_found"
    )
    assert "Did you mean symmetry?" in refused["detail"]


def bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(4)


def test_what_is_no_picture_is_refused_before_anything_is_stored(api: Api) -> None:
    uploads: list[tuple[dict[str, Any], str, int]] = [
        ({"files": files(png(), b"#!/bin/sh")}, "images.1", 422),
        ({"files": files(bomb(50_000))}, "images.0", 422),
        ({"files": files(png()[:20])}, "images.0", 422),
        ({"files": files(b"")}, "images.0", 422),
        ({"files": [("picture", ("a.png", png()))]}, "picture", 422),
        ({"files": files(png()), "data": {"prompt": "a", "prompts": ["b"]}}, "prompts", 422),
        ({"files": files(png()), "data": {"prompts": ["a", "b"]}}, "prompts", 422),
        ({"files": files(png()), "data": {"weight": "2"}}, "weight", 422),
    ]
    for body, param, status in uploads:
        refused = problem(api.client.post(URL, **body), status, "invalid_value")
        assert refused["param"] == param, refused
    problem(api.client.post(URL, files=files(*[png()] * 17)), 400, "malformed")
    assert api.service.objects.list("uploads/") == ()


def test_all_mistakes_are_told_at_once(api: Api) -> None:
    uploads = files(png(), b"#!/bin/sh", bomb(50_000))
    data = {"prompts": ["a", "b"], "source": "shapez", "weight": "2"}
    refused = problem(
        api.client.post("/rewards/hps_v2/score", files=uploads, data=data), 422, "invalid_request"
    )
    found = {mistake["pointer"]: mistake["code"] for mistake in refused["errors"]}
    assert found == {
        "/weight": "invalid_value",
        "/images/1": "invalid_value",
        "/images/2": "invalid_value",
        "/prompts": "invalid_value",
        "/source/name": "unknown_name",
    }
    body = {"image_ids": [f"img_{'0' * 26}"], "source": {"path": "/x"}, "prompts": ["a", "b"]}
    refused = problem(api.client.post(URL, json=body), 422, "invalid_value")
    assert [mistake["pointer"] for mistake in refused["errors"]] == ["/prompts", "/source/path"]
    assert api.service.objects.list("uploads/") == ()


def test_other_bodies(api: Api) -> None:
    problem(api.client.post(URL, content=b"x"), 415, "unsupported_media_type")
    for body in (b"{", b"[]", b"\xff", b"3"):
        headers = {"content-type": "application/json"}
        problem(api.client.post(URL, content=body, headers=headers), 400, "malformed")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    problem(api.client.post(URL, content=b"--y", headers=broken), 400, "malformed")
    no_boundary = {"content-type": "multipart/form-data"}
    problem(api.client.post(URL, content=b"--y", headers=no_boundary), 400, "malformed")
    refused = problem(api.client.post(URL, json={"image_ids": [], "x": 1}), 422, "invalid_request")
    assert {mistake["pointer"] for mistake in refused["errors"]} == {"/image_ids", "/x"}
    problem(api.client.post(URL, json={"image_ids": ["img_\0"]}), 404, "not_found")


def test_repetitions_do_nothing(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    first = api.client.post(URL, files=files(png()), headers=headers)
    stored = api.service.objects.list("uploads/")
    assert len(stored) == 1
    again = api.client.post(URL, files=files(png()), headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    other = api.client.post(URL, files=files(png(shade=3)), headers=headers)
    problem(other, 422, "idempotency_key_reused")
    assert api.service.objects.list("uploads/") == stored


def test_nothing_is_stored_for_what_is_refused(api: Api) -> None:
    answer = api.client.post(URL, files=files(png()), data={"source": "shapes"})
    problem(answer, 422, "invalid_value")
    assert api.service.objects.list("uploads/") == ()


def test_of_repetitions_at_once_one_is_stored(api: Api) -> None:
    def post(_: int) -> str:
        headers = {"Idempotency-Key": "k"}
        found: str = api.client.post(URL, files=files(png()), headers=headers).json()["id"]
        return found

    with ThreadPoolExecutor(4) as pool:
        (generation_id,) = set(pool.map(post, range(4)))
    assert api.service.objects.list("uploads/") == (f"uploads/{generation_id}/00.png",)
