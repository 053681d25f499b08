from __future__ import annotations

from tests.api.conftest import Api, problem
from tests.api.works import CARD, adapter

UNKNOWN = "adp_00000000000000000000000000"


def test_an_adapter_says_what_it_is(api: Api) -> None:
    row = adapter(api, name="mirror")
    found = api.client.get(f"/adapters/{row.id}").json()
    assert (found["name"], found["method"], found["rewards"]) == ("mirror", "draft_k", ["symmetry"])
    assert (found["steps"], found["guidance_scale"], found["rank"], found["branches"]) == (
        3, 3.0, 4, 1
    )  # fmt: skip
    assert found["card"] == CARD.model_dump(mode="json")
    assert api.client.get(found["urls"]["job"]).json()["id"] == row.job_id
    assert "prefix" not in found


def test_lists_page_by_page(api: Api) -> None:
    ids = [adapter(api).id for _ in range(2)]
    page = api.client.get("/adapters?limit=1").json()
    assert ([item["id"] for item in page["data"]], page["has_more"]) == ([ids[1]], True)


def test_others_see_nothing_of_it(api: Api) -> None:
    row = adapter(api)
    key = api.key(project="other")
    problem(api.client.get(f"/adapters/{row.id}", headers=key), 404, "not_found")
    assert api.client.get("/adapters", headers=key).json()["data"] == []
    problem(api.client.get(f"/adapters/{UNKNOWN}", headers=key), 404, "not_found")
    body = {"prompt": "a", "adapters": [{"id": row.id}]}
    problem(api.client.post("/generate", json=body, headers=key), 404, "not_found")
