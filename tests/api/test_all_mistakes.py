from __future__ import annotations

from typing import Any, Final

import pytest

from tests.api.conftest import SPEC, Api, problem
from tests.api.works import adapter

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
_PROMPT: Final = {"prompt": "a red circle"}
_UNKNOWN_MODEL: Final = {"base_model": {"name": "shape"}}


def _pointers(api: Api, path: str, body: dict[str, Any]) -> list[str]:
    answer = api.client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    return [mistake["pointer"] for mistake in answer.json()["errors"]]


JOBS: Final[list[tuple[dict[str, Any], list[str]]]] = [
    (
        _UNKNOWN_MODEL
        | {
            "rewards": [{"name": "jpeg_size"}],
            "prompts": {"name": "shapes-trian"},
            "evaluation": {
                "prompts": {"name": "shapes-evil"},
                "held_out": ["hps", "symmetry", "clip"],
            },
        },
        [
            "/base_model/name",
            "/prompts/name",
            "/evaluation/prompts/name",
            "/evaluation/held_out/0",
            "/evaluation/held_out/2",
            "/rewards/0/name",
        ],
    ),
    (
        _UNKNOWN_MODEL | {"evaluation": {"held_out": ["symmetry"]}},
        ["/base_model/name", "/evaluation/held_out/0"],
    ),
    (
        _UNKNOWN_MODEL | {"method": {"type": "shortft", "shortcut": {"name": "hyper"}}},
        ["/base_model/name", "/method/shortcut/name"],
    ),
    (
        {
            "prompts": {"name": "shapes-trian"},
            "evaluation": {"held_out": []},
            "guard": {"action": "stop"},
        },
        ["/prompts/name", "/guard/action"],
    ),
]


def test_one_unknown_name_hides_no_other_mistake(api: Api) -> None:
    for change, pointers in JOBS:
        for path in ("/jobs", "/jobs/validate"):
            assert _pointers(api, path, SPEC | change) == pointers


def test_the_mistakes_of_a_distillation_are_reported_at_once(api: Api) -> None:
    judges = [{"name": name, "source": {"name": "shapez"}} for name in ("hps_v2", "pickscore")]
    body = _UNKNOWN_MODEL | {
        "kind": "distil",
        "prompts": {"name": "shapes-trian"},
        "evaluation": {"rewards": judges},
    }
    assert _pointers(api, "/jobs", body) == [
        "/base_model/name",
        "/prompts/name",
        "/evaluation/rewards/0/source/name",
        "/evaluation/rewards/1/source/name",
    ]


FOLLOWING: Final[list[dict[str, Any]]] = [
    {"method": {"type": "shortft"}},
    {"method": {"type": "shortft", "shortcut": {"name": "shapes-shortcut"}}},
    {"method": {"type": "direct"}},
    {"rewards": [{"name": "hps_v2"}, {"name": "combined"}]},
    {"rewards": [{"name": "combined"}, {"name": "clipscore"}], "guard": {"action": "stop"}},
]
"""Parts that are right for `shapes`, and cannot be judged without a model."""


def test_what_follows_from_an_unknown_model_is_no_mistake(api: Api) -> None:
    for change in FOLLOWING:
        assert api.client.post("/jobs/validate", json=SPEC | change).status_code == 200, change
        body = api.client.post("/jobs/validate", json=SPEC | change | _UNKNOWN_MODEL)
        refused = problem(body, 422, "unknown_name")
        assert [mistake["pointer"] for mistake in refused["errors"]] == ["/base_model/name"], change
        assert "shapes" in refused["known"]


LISTS: Final[list[tuple[str, dict[str, Any], list[str]]]] = [
    ("/jobs", SPEC | {"rewards": [{"name": "symetry"}]}, ["/rewards/0/name"]),
    ("/jobs", SPEC | {"rewards": [{"name": "symetry"}] * 2},
     ["/rewards/0/name", "/rewards/1/name"]),
    ("/jobs", SPEC | {"rewards": []}, ["/rewards"]),
    ("/generate", {"prompts": [""]}, ["/prompts/0"]),
    ("/generate", {"prompts": []}, ["/prompts"]),
]  # fmt: skip


def test_a_list_is_not_too_short_for_its_wrong_items(api: Api) -> None:
    for path, body, pointers in LISTS:
        assert _pointers(api, path, body) == pointers, body
    detail = api.client.post("/jobs", json=SPEC | {"rewards": [{"name": "symetry"}]}).json()
    assert "more in `errors`" not in detail["detail"]


GENERATIONS: Final[list[tuple[dict[str, Any], list[str]]]] = [
    (
        {"base_model": "shape", "score_with": ["symmetry", "symmetry"]},
        ["/base_model/name", "/score_with/1"],
    ),
    (
        {
            "base_model": {"path": "/etc"},
            "score_with": [
                {"name": "hps_v2", "source": {"name": "shapez"}},
                {
                    "name": "aesthetic",
                    "source": {"path": "/etc/passwd"},
                    "clip": {"path": "/etc/passwd"},
                },
                {"name": "hps_v2", "source": {"name": "shapez"}},
            ],
        },
        [
            "/base_model/path",
            "/score_with/0/source/name",
            "/score_with/1/source/path",
            "/score_with/1/clip/path",
            "/score_with/2",
            "/score_with/2/source/name",
        ],
    ),
    ({"base_model": "shape"}, ["/base_model/name"]),
]


def test_all_mistakes_of_a_generation_are_reported_at_once(api: Api) -> None:
    for change, pointers in GENERATIONS:
        assert _pointers(api, "/generate", _PROMPT | change) == pointers
    refused = problem(
        api.client.post("/generate", json=_PROMPT | GENERATIONS[0][0]), 422, "invalid_request"
    )
    assert [mistake["code"] for mistake in refused["errors"]] == ["unknown_name", "invalid_value"]
    assert refused["param"] == "base_model.name"
    assert refused["detail"].endswith("(1 more in `errors`)")
    assert api.client.get("/generations").json()["data"] == []


def test_adapters_are_checked_beside_the_rest_of_a_generation(api: Api) -> None:
    first = adapter(api)
    body = _PROMPT | {
        "adapters": [{"id": first.id}, {"id": first.job_id}],
        "base_model": "sd15",
        "num_inference_steps": 50,
        "score_with": ["symmetry", "symmetry"],
    }
    assert _pointers(api, "/generate", body) == [
        "/base_model",
        "/adapters/1/id",
        "/num_inference_steps",
        "/score_with/1",
    ]


FORMS: Final[list[tuple[str, dict[str, Any], list[str]]]] = [
    (
        "/jobs",
        SPEC
        | _UNKNOWN_MODEL
        | {
            "method": {"type": "draft_k", "updates": -1},
            "prompts": {"name": "shapes-trian"},
            "evaluation": {"prompts": {"name": "shapes-evil"}},
        },
        ["/method/updates", "/base_model/name", "/prompts/name", "/evaluation/prompts/name"],
    ),
    ("/jobs", SPEC | {"base_model": {"name": "shape", "id": "a/b"}}, ["/base_model"]),
    ("/jobs", SPEC | {"base_model": {"name": "x" * 201}}, ["/base_model/name"]),
    ("/jobs", SPEC | {"base_model": "shape"}, ["/base_model"]),
    ("/jobs", SPEC | {"seed": -1}, ["/seed"]),
    ("/generate", _PROMPT | {"base_model": "shape", "seed": -1}, ["/seed", "/base_model/name"]),
    ("/generate", {"prompts": "shape", "base_model": {}}, ["/prompts", "/base_model"]),
]


def test_a_mistake_of_the_form_hides_no_unknown_name(api: Api) -> None:
    for path, body, pointers in FORMS:
        assert _pointers(api, path, body) == pointers, body
    job = api.submit()
    refused = api.client.patch(f"/jobs/{job['id']}", json=_UNKNOWN_MODEL | {"evaluation": SPEC})
    pointers = [mistake["pointer"] for mistake in refused.json()["errors"]]
    assert pointers == ["/base_model", "/evaluation"]
