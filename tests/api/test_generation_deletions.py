from __future__ import annotations

from store.models import Generation
from tests.api.conftest import Api, problem
from tests.api.works import png, serve


def test_a_finished_generation_is_forgotten_with_its_pictures(api: Api) -> None:
    url = api.client.post("/generate", json={"prompt": "a red circle"}).headers["location"]
    refused = problem(api.client.delete(url), 409, "invalid_state")
    assert (refused["current_status"], refused["allowed_actions"]) == ("queued", ["cancel"])
    generation: Generation = serve(api, pictures=[png(shade=5)])
    (image,) = api.client.get(url).json()["images"]
    counted = finished(api)
    assert api.client.delete(url).status_code == 204
    for gone in (url, image["url"]):
        problem(api.client.get(gone), 404, "not_found")
    problem(api.client.delete(url), 404, "not_found")
    assert generation.id not in api.client.get("/generations").text
    assert finished(api) == counted == 'shortft_generations_total{status="succeeded"} 1.0'


def finished(api: Api) -> str:
    """The line that counts what succeeded."""
    lines = api.client.get("/metrics").text.splitlines()
    return next(line for line in lines if 'shortft_generations_total{status="succ' in line)


def test_a_generation_is_deleted_by_its_project_alone(api: Api) -> None:
    url = api.client.post("/generate", json={"prompt": "a red circle"}).headers["location"]
    api.client.post(f"{url}/cancel")
    other, owner = api.key(project="theirs"), api.key()
    problem(api.client.delete(url, headers=other), 404, "not_found")
    assert api.client.delete(url, headers=owner).status_code == 204


def test_a_repeated_request_whose_generation_is_gone_gets_its_first_answer(api: Api) -> None:
    body, key = {"prompt": "a red circle"}, {"Idempotency-Key": "k"}
    first = api.client.post("/generate", json=body, headers=key)
    api.client.post(f"{first.headers['location']}/cancel")
    assert api.client.delete(first.headers["location"]).status_code == 204
    again = api.client.post("/generate", json=body, headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    waiting = api.client.post("/generate", json=body, headers=key | {"Prefer": "wait=1"})
    problem(waiting, 404, "not_found")
