from __future__ import annotations

from typing import Any

import pytest

from shortft_core import catalog
from store.api_keys import Scope
from tests.api.conftest import Api, problem

SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


def named(api: Api, path: str) -> dict[str, dict[str, Any]]:
    answer = api.client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.json()["has_more"] is False
    return {item["name"]: item for item in answer.json()["data"]}


@SQLITE
def test_models(api: Api) -> None:
    found = named(api, "/models")
    assert set(found) == set(catalog.BASE_MODELS)
    shapes = found["shapes"]
    assert (shapes["on_disk"], shapes["guidance_scale"]) == (True, 3.0)
    assert 10_000_000 < shapes["size_bytes"] < 100_000_000
    shortcuts = {item["name"]: item for item in shapes["shortcuts"]}
    assert shortcuts["shapes-shortcut"]["on_disk"] == [2, 4]
    assert shapes["default_shortcut"] == "shapes-shortcut"
    assert (found["sd15"]["on_disk"], found["sd15"]["size_bytes"]) == (False, None)
    assert found["sd15"]["hub_id"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"


@SQLITE
def test_rewards(api: Api) -> None:
    found = named(api, "/rewards")
    assert set(found) == set(catalog.REWARDS)
    assert found["jpeg_size"]["differentiable"] is False
    sources = {item["name"]: item["on_disk"] for item in found["hps_v2"]["sources"]}
    assert sources == {"official": False, "shapes": True}
    assert found["combined"]["adds_up"] == {"pickscore": 10.0, "hps_v2": 2.0, "aesthetic": 0.05}
    quality = found["compressibility"]["parameters"]["properties"]["quality"]
    assert (quality["default"], quality["maximum"]) == (95, 100)


@SQLITE
def test_methods(api: Api) -> None:
    found = named(api, "/methods")
    assert set(found) == set(catalog.METHODS)
    shortft = found["shortft"]
    assert shortft["defaults"]["segments"] == 4
    assert shortft["units"]["seconds"] == "seconds"
    for method in found.values():
        assert set(method["defaults"]) <= set(method["parameters"]["properties"])
        assert set(method["units"]) <= set(method["parameters"]["properties"])
        assert method["parameters"]["properties"]["rank"]["description"].startswith("LoRA rank")


@SQLITE
def test_the_catalog_asks_for_a_key_that_reads(api: Api) -> None:
    key = api.key(Scope.GENERATE)
    for path in ("/models", "/rewards", "/methods"):
        problem(api.client.get(path), 401, "unauthenticated")
        problem(api.client.get(path, headers=key), 403, "forbidden")
