from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from shortft_core.spec.generation import GenerationSpec
from store import generation_leases, generations
from store.api_keys import Scope
from store.generation_leases import ClaimedGeneration
from store.leases import Report
from store.models import Generation
from store.states import GenerationStatus
from tests.api.conftest import Api, problem
from tests.api.works import CARD, adapter, png, serve
from tests.servers.processes import wait_until

UNKNOWN = "gen_00000000000000000000000000"
PROMPT = {"prompt": "a red circle"}
SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
"""For what no database sees."""


def row(api: Api, generation_id: str) -> Generation:
    with api.database.read() as session:
        return generations.get(session, generation_id, "default")


def made(api: Api, body: dict[str, Any]) -> GenerationSpec:
    """What a worker would read of a request that was accepted."""
    answer = api.client.post("/generate", json=body)
    assert answer.status_code == 202, answer.text
    return GenerationSpec.model_validate(row(api, answer.json()["id"]).request)


def claim(api: Api) -> ClaimedGeneration:
    """The next request in the hands of a worker, which has to be there."""
    (claimed,) = api.taken(lambda session: generation_leases.claim_batch(session, "wrk_g", most=1))
    return claimed


def soon(api: Api, take: Callable[[], object]) -> threading.Thread:
    """A worker that takes the first request that comes."""

    def work() -> None:
        wait_until(lambda: api.database.transact(generation_leases.is_due), 20)
        take()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_request_is_resolved_and_queued(api: Api) -> None:
    body = PROMPT | {"num_images": 3, "seed": 7, "score_with": ["symmetry", {"name": "hps_v2"}]}
    answer = api.client.post("/generate", json=body)
    assert answer.status_code == 202
    generation = answer.json()
    assert answer.headers["location"] == f"/generations/{generation['id']}"
    assert answer.headers["retry-after"] == "2"
    assert "ratelimit" in answer.headers
    assert generation["status"] == "queued"
    assert generation["request"]["seeds"] == [7, 8, 9]
    spec = GenerationSpec.model_validate(row(api, generation["id"]).request)
    assert spec.prompts == ("a red circle",) * 3
    assert (spec.steps, spec.guidance_scale, spec.output_format) == (50, 3.0, "png")
    assert [str(getattr(term, "source", None)) for term in spec.score_with] == ["None", "shapes"]
    assert row(api, generation["id"]).batch_key == spec.batch_key()
    assert api.client.get(generation["urls"]["self"]).json() == generation


@SQLITE
def test_seeds_are_drawn_where_none_are_given_and_kept_where_they_are(api: Api) -> None:
    drawn = [made(api, PROMPT | {"num_images": 2}).seeds for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert all(second == first + 1 for first, second in drawn)
    several = {"prompts": ["a", "b"], "num_images": 2, "seeds": [5, 5, 0, 2**62]}
    spec = made(api, several)
    assert list(zip(spec.prompts, spec.seeds, strict=True)) == [
        ("a", 5), ("a", 5), ("b", 0), ("b", 2**62)
    ]  # fmt: skip


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    (PROMPT | {"prompts": ["b"]}, ""),
    (PROMPT | {"num_images": 17}, "/num_images"),
    ({"prompts": ["a", "b"], "num_images": 9}, ""),
    (PROMPT | {"seed": 1, "seeds": [1]}, ""),
    (PROMPT | {"seeds": [1, 2]}, ""),
    (PROMPT | {"seed": -1}, "/seed"),
    (PROMPT | {"seed": 2**63 - 1}, "/seed"),
    (PROMPT | {"seed": 10**400}, "/seed"),
    (PROMPT | {"width": 65}, "/width"),
    (PROMPT | {"height": 100_000}, "/height"),
    (PROMPT | {"num_inference_steps": 0}, "/num_inference_steps"),
    (PROMPT | {"guidance_scale": 0.5}, "/guidance_scale"),
    (PROMPT | {"scheduler": "euler"}, "/scheduler"),
    (PROMPT | {"output_format": "gif"}, "/output_format"),
    (PROMPT | {"compare_base": True}, ""),
    (PROMPT | {"lora": "x"}, "/lora"),
    ({"prompt": "a\0b"}, "/prompt"),
    ({"prompt": ""}, "/prompt"),
    ({"prompt": "x" * 4001}, "/prompt"),
    ({"prompt": ["a"]}, "/prompt"),
    (PROMPT | {"adapters": [{"id": "../../etc/passwd"}]}, "/adapters/0/id"),
    (PROMPT | {"adapters": [{"id": "job_1"}]}, "/adapters/0/id"),
    (PROMPT | {"negative_prompt": "\0"}, "/negative_prompt"),
    (PROMPT | {"metadata": {"a": "\0"}}, "/metadata/a"),
    (PROMPT | {"base_model": {"id": "a/b\0"}}, "/base_model/id"),
    (PROMPT | {"base_model": {"id": "a/b", "revision": "\0"}}, "/base_model/revision"),
    (PROMPT | {"base_model": {"id": "a/b", "revision": "../../etc"}}, "/base_model/revision"),
    (PROMPT | {"score_with": ["symetry"]}, "/score_with/0/name"),
]


def test_mistakes_of_the_form_are_named(api: Api) -> None:
    for body, pointer in MISTAKES:
        refused = problem(api.client.post("/generate", json=body), 422, "invalid_request")
        assert pointer in [mistake["pointer"] for mistake in refused["errors"]], body


UNSERVED: list[tuple[dict[str, Any], str, str]] = [
    (PROMPT | {"base_model": "shape"}, "unknown_name", "base_model.name"),
    (PROMPT | {"base_model": "shapes\0"}, "unknown_name", "base_model.name"),
    (PROMPT | {"base_model": {"path": "/etc"}}, "invalid_value", "base_model.path"),
    (PROMPT | {"score_with": ["symmetry"] * 2}, "invalid_value", "score_with.1"),
    (
        PROMPT | {"score_with": [{"name": "hps_v2", "source": {"path": "/etc"}}]},
        "invalid_value",
        "score_with.0.source.path",
    ),
    (
        PROMPT | {"score_with": [{"name": "hps_v2", "source": {"name": "shapez"}}]},
        "unknown_name",
        "score_with.0.source.name",
    ),
]


def test_what_cannot_be_served_is_refused(api: Api) -> None:
    for body, code, param in UNSERVED:
        refused = problem(api.client.post("/generate", json=body), 422, code)
        assert refused["param"] == param


@SQLITE
def test_lone_surrogates_are_refused(api: Api) -> None:
    body = b'{"prompt": "\\ud800"}'
    answer = api.client.post(
        "/generate", content=body, headers={"content-type": "application/json"}
    )
    problem(answer, 422, "invalid_request")


def test_an_adapter_gives_model_steps_and_guidance(api: Api) -> None:
    made_by_job = adapter(api)
    for reference in (made_by_job.id, made_by_job.job_id):
        spec = made(api, PROMPT | {"adapters": [{"id": reference, "scale": 0.5}]})
        assert (spec.steps, spec.guidance_scale) == (3, 3.0)
        assert str(spec.base_model) == "shapes"
        (served,) = spec.adapters
        assert (served.id, served.prefix, served.scale) == (reference, made_by_job.prefix, 0.5)
        card = api.service.objects.read(f"{made_by_job.prefix}shortft.json")
        assert served.card_sha256 == hashlib.sha256(card).hexdigest()


@SQLITE
def test_answers_name_no_object(api: Api) -> None:
    body = PROMPT | {"adapters": [{"id": adapter(api).id}]}
    assert "artifacts/t" not in api.client.post("/generate", json=body).text


@SQLITE
def test_an_adapter_fixes_the_steps(api: Api) -> None:
    body = PROMPT | {"adapters": [{"id": adapter(api).id}], "num_inference_steps": 50}
    refused = problem(api.client.post("/generate", json=body), 422, "invalid_value")
    assert refused["param"] == "num_inference_steps"
    assert "chain of 3 steps" in refused["detail"]
    assert made(api, body | {"num_inference_steps": 3}).steps == 3


@SQLITE
def test_another_guidance_is_allowed_with_a_warning(api: Api) -> None:
    found = adapter(api)
    body = PROMPT | {"adapters": [{"id": found.id}], "guidance_scale": 5.0}
    answer = api.client.post("/generate", json=body).json()
    assert answer["warnings"] == [f"{found.id} was trained at guidance 3, not 5"]
    assert answer["request"]["guidance_scale"] == 5.0


def test_adapters_of_one_chain_are_summed_and_others_refused(api: Api) -> None:
    first, second = adapter(api), adapter(api)
    body = PROMPT | {"adapters": [{"id": first.id}, {"id": second.id, "scale": -0.5}]}
    assert [served.scale for served in made(api, body).adapters] == [1.0, -0.5]
    other_grid = CARD.model_copy(update={"timesteps": (981, 961, 901)})
    other_base = CARD.model_copy(update={"base_sha256": "c" * 64})
    for card, what in ((other_grid, "chain"), (other_base, "base model")):
        body = PROMPT | {"adapters": [{"id": first.id}, {"id": adapter(api, card).id}]}
        refused = problem(api.client.post("/generate", json=body), 422, "invalid_value")
        assert refused["param"] == "adapters.1.id"
        assert f"its {what} is another" in refused["detail"]
    for name in (first.id, first.job_id):
        body = PROMPT | {"adapters": [{"id": first.id}, {"id": name}]}
        refused = problem(api.client.post("/generate", json=body), 422, "invalid_value")
        assert (refused["param"], "named twice" in refused["detail"]) == ("adapters.1.id", True)


@SQLITE
def test_an_adapter_belongs_to_its_base_model(api: Api) -> None:
    body = PROMPT | {"adapters": [{"id": adapter(api).id}], "base_model": "sd15"}
    refused = problem(api.client.post("/generate", json=body), 422, "invalid_value")
    assert refused["param"] == "base_model"


def test_adapters_that_are_not_there(api: Api) -> None:
    missing = f"adp_{'0' * 26}"
    body = PROMPT | {"adapters": [{"id": missing}]}
    problem(api.client.post("/generate", json=body), 404, "not_found")
    job = api.submit()["id"]
    for reference in (job, f"{job}@best", f"{job}@3"):
        body = PROMPT | {"adapters": [{"id": reference}]}
        problem(api.client.post("/generate", json=body), 422, "invalid_value")


@SQLITE
def test_an_adapter_whose_files_are_gone(api: Api) -> None:
    found = adapter(api)
    api.service.objects.delete(f"{found.prefix}shortft.json")
    answer = api.client.post("/generate", json=PROMPT | {"adapters": [{"id": found.id}]})
    assert found.prefix not in problem(answer, 410, "gone")["detail"]


def test_pictures_of_a_finished_generation(api: Api) -> None:
    body = PROMPT | {"adapters": [{"id": adapter(api).id}], "compare_base": True, "num_images": 2}
    generation_id = api.client.post("/generate", json=body | {"seed": 1}).json()["id"]
    serve(api, base=True, outcome={"warnings": ["slow"], "timings": {"denoise": 1.5}})
    found = api.client.get(f"/generations/{generation_id}").json()
    assert found["status"] == "succeeded"
    assert (found["warnings"], found["timings"]) == (["slow"], {"denoise": 1.5})
    pairs = [(image["pair_index"], image["kind"], image["seed"]) for image in found["images"]]
    assert pairs == [(0, "base", 1), (0, "tuned", 1), (1, "base", 2), (1, "tuned", 2)]
    assert found["images"][0]["scores"] == {"symmetry": -0.25}
    data = api.client.get(found["images"][3]["url"]).content
    assert hashlib.sha256(data).hexdigest() == found["images"][3]["sha256"]
    with_bytes = api.client.get(f"/generations/{generation_id}?response_format=b64_json").json()
    assert base64.b64decode(with_bytes["images"][3]["b64_json"]) == data


def test_waiting_answers_with_the_result(api: Api) -> None:
    worker = soon(api, lambda: serve(api))
    answer = api.client.post("/generate", json=PROMPT, headers={"Prefer": "wait=20"})
    worker.join()
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    found = answer.json()
    assert found["status"] == "succeeded"
    assert len(found["images"]) == 1
    assert answer.headers["content-location"] == f"/generations/{found['id']}"


@SQLITE
def test_waiting_ends_after_its_time(api: Api) -> None:
    answer = api.client.post("/generate", json=PROMPT, headers={"Prefer": "wait=0, foo"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")
    answer = api.client.post("/generate", json=PROMPT, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert "preference-applied" not in api.client.post("/generate", json=PROMPT).headers


@SQLITE
def test_what_takes_longer_is_shown_as_it_is_by_then(api: Api) -> None:
    for accept in ("application/json", "image/png"):
        worker = soon(api, lambda: claim(api))
        headers = {"Prefer": "wait=1", "Accept": accept}
        answer = api.client.post("/generate", json=PROMPT, headers=headers)
        worker.join()
        assert (answer.status_code, answer.json()["status"]) == (202, "running")
        assert answer.json() == api.client.get(answer.headers["location"]).json()


@SQLITE
def test_bytes_come_along_where_they_are_asked_for(api: Api) -> None:
    worker = soon(api, lambda: serve(api, [png(shade=9)]))
    body = PROMPT | {"response_format": "b64_json"}
    answer = api.client.post("/generate", json=body, headers={"Prefer": "wait=20"})
    worker.join()
    assert base64.b64decode(answer.json()["images"][0]["b64_json"]) == png(shade=9)


@SQLITE
def test_a_picture_itself_is_the_answer(api: Api) -> None:
    worker = soon(api, lambda: serve(api, [png(shade=9)]))
    body = PROMPT | {"seed": 11}
    answer = api.client.post("/generate", json=body, headers={"Accept": "image/png"})
    worker.join()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == png(shade=9)
    assert answer.headers["x-seed"] == "11"
    assert answer.headers["x-generation-id"].startswith("gen_")


@SQLITE
def test_a_picture_that_takes_longer_is_promised(api: Api) -> None:
    headers = {"Accept": "image/webp", "Prefer": "wait=0"}
    answer = api.client.post("/generate", json=PROMPT, headers=headers)
    assert answer.status_code == 202
    assert answer.json()["request"]["output_format"] == "webp"


def test_a_picture_that_failed_is_a_problem(api: Api) -> None:
    def fail() -> None:
        lease = claim(api).lease
        report = Report(error_code="out_of_memory", error_message="the picture is too large")
        api.database.transact(lambda session: generation_leases.fail(session, lease, report))

    worker = soon(api, fail)
    answer = api.client.post("/generate", json=PROMPT, headers={"Accept": "image/png"})
    worker.join()
    refused = problem(answer, 409, "invalid_state")
    assert refused["error_code"] == "out_of_memory"
    assert refused["detail"] == "the picture is too large"
    found = api.client.get(f"/generations/{refused['generation_id']}").json()
    assert found["error"] == {"code": "out_of_memory", "message": "the picture is too large"}


UNACCEPTABLE: list[tuple[dict[str, Any], str]] = [
    (PROMPT, "text/html"),
    (PROMPT, "application/json;q=0"),
    (PROMPT, "image/gif"),
    (PROMPT | {"num_images": 2}, "image/png"),
    (PROMPT | {"output_format": "jpeg"}, "image/png"),
]


def test_other_representations_are_not_there(api: Api) -> None:
    for body, accept in UNACCEPTABLE:
        answer = api.client.post("/generate", json=body, headers={"Accept": accept})
        problem(answer, 406, "not_acceptable")
    assert api.client.get("/generations").json()["data"] == []


def test_repetitions_do_nothing(api: Api) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = api.client.post("/generate", json=PROMPT, headers=headers)
    again = api.client.post("/generate", json=PROMPT, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert len(api.client.get("/generations").json()["data"]) == 1
    other = api.client.post("/generate", json={"prompt": "b"}, headers=headers)
    problem(other, 422, "idempotency_key_reused")


def test_cancel(api: Api) -> None:
    generation = api.client.post("/generate", json=PROMPT).json()
    answer = api.client.post(generation["urls"]["cancel"])
    assert answer.json()["status"] == "cancelled"
    assert row(api, generation["id"]).status is GenerationStatus.CANCELLED
    problem(api.client.post(generation["urls"]["cancel"]), 409, "invalid_state")


def test_lists_page_by_page(api: Api) -> None:
    ids = [api.client.post("/generate", json=PROMPT).json()["id"] for _ in range(3)]
    page = api.client.get("/generations?limit=2")
    assert [item["id"] for item in page.json()["data"]] == [ids[2], ids[1]]
    assert page.json()["has_more"] is True
    following = page.headers["link"].split(">")[0].removeprefix("<")
    assert [item["id"] for item in api.client.get(following).json()["data"]] == [ids[0]]


def test_others_see_nothing_of_it(api: Api) -> None:
    generation = api.client.post("/generate", json=PROMPT).json()
    serve(api)
    image = api.client.get(generation["urls"]["self"]).json()["images"][0]
    api.key()
    key = api.key(project="other")
    for url in (generation["urls"]["self"], image["url"]):
        problem(api.client.get(url, headers=key), 404, "not_found")
        problem(api.client.get(url), 401, "unauthenticated")
    problem(api.client.post(generation["urls"]["cancel"], headers=key), 404, "not_found")
    assert api.client.get("/generations", headers=key).json()["data"] == []


@SQLITE
def test_the_scope_is_asked_for(api: Api) -> None:
    key = api.key(Scope.JOBS_READ)
    problem(api.client.post("/generate", json=PROMPT, headers=key), 403, "forbidden")
    problem(api.client.get(f"/generations/{UNKNOWN}", headers=key), 403, "forbidden")


def test_what_is_not_there(api: Api) -> None:
    for path in (f"/generations/{UNKNOWN}", "/generations/%00", "/images/x", "/images/img_%27"):
        problem(api.client.get(path), 404, "not_found")
