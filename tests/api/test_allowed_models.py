"""Which models and hub repositories a request may name, where the operator has said so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api.settings import api_settings
from shortft_core import settings as core
from shortft_core.errors import UserError
from tests.api.conftest import SPEC, Api, Opened, problem
from tests.api.works import CARD, adapter, png

SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
"""The list is no business of any database."""
VARIABLE = "SHORTFT_ALLOWED_BASE_MODELS"
OTHER = {"id": "someone/else"}
Allowing = Callable[[str | None], Api]


@pytest.fixture
def allowing(open_api: Opened, monkeypatch: pytest.MonkeyPatch) -> Iterator[Allowing]:
    """Starts the application with this list of the operator's.

    Downloads are allowed: the service itself makes none.
    """
    monkeypatch.setenv("SHORTFT_OFFLINE", "0")
    core.settings.cache_clear()
    yield lambda models: open_api(allowed_base_models=models)
    core.settings.cache_clear()


def job(**method: Any) -> dict[str, Any]:
    """A job of the only method that jumps."""
    return SPEC | {"method": {"type": "shortft", "updates": 40} | method}


@SQLITE
def test_the_list_rules_base_models_by_name_and_by_id(allowing: Allowing) -> None:
    api = allowing("sd15, owner/model")
    accepted: list[dict[str, Any]] = [
        {"name": "sd15"}, {"id": "owner/model"}, {"id": "owner/model", "revision": "main"},
    ]  # fmt: skip
    for source in accepted:
        answer = api.client.post("/jobs", json=SPEC | {"base_model": source})
        assert answer.status_code == 202, answer.text
        answer = api.client.post("/generate", json={"prompt": "a", "base_model": source})
        assert answer.status_code == 202, answer.text
    refused: list[tuple[dict[str, Any], str]] = [
        ({"name": "shapes"}, "name"), ({"name": "sd14"}, "name"), (OTHER, "id"),
        ({"id": "Owner/model"}, "id"),
    ]  # fmt: skip
    for source, field in refused:
        for path, body in (
            ("/jobs", SPEC | {"base_model": source}),
            ("/jobs/validate", SPEC | {"base_model": source}),
            ("/generate", {"prompt": "a", "base_model": source}),
        ):
            found = problem(api.client.post(path, json=body), 422, "invalid_value")
            assert found["param"] == f"base_model.{field}"
            assert "is not on this service's list of models" in found["detail"]
            assert "Use sd15 or owner/model." in found["detail"]


@SQLITE
def test_what_is_bundled_is_on_the_list_or_not(allowing: Allowing) -> None:
    api = allowing("sd15")
    found = problem(api.client.post("/generate", json={"prompt": "a"}), 422, "invalid_value")
    assert found["param"] == "base_model.name"
    api = allowing("shapes")
    made = adapter(api)
    asked = {"prompt": "a", "adapters": [{"id": made.id}]}
    assert api.client.post("/generate", json=asked).status_code == 202
    # An adapter brings its base model along.
    api = allowing("sd15")
    assert CARD.base_model.name == "shapes"
    problem(api.client.post("/generate", json=asked), 422, "invalid_value")


@SQLITE
@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (job(shortcut=OTHER), ["method/shortcut/id"]),
        (job(init_adapter=OTHER), ["method/init_adapter/id"]),
        (SPEC | {"method": {"type": "direct", "few_step": OTHER}}, ["method/few_step/id"]),
        (
            SPEC | {"rewards": [{"name": "aesthetic", "source": OTHER, "clip": OTHER}]},
            ["rewards/0/source/id", "rewards/0/clip/id"],
        ),
        (
            {
                "kind": "distil", "base_model": SPEC["base_model"], "prompts": SPEC["prompts"],
                "evaluation": {"rewards": [{"name": "pickscore", "source": OTHER}]},
            },
            ["evaluation/rewards/0/source/id"],
        ),
    ],
)  # fmt: skip
def test_the_list_rules_hub_ids_of_other_weights(
    spec: dict[str, Any], fields: list[str], allowing: Allowing
) -> None:
    api = allowing("shapes")
    found = problem(api.client.post("/jobs", json=spec), 422, "invalid_value")
    assert [mistake["pointer"] for mistake in found["errors"]] == [f"/{name}" for name in fields]
    assert VARIABLE in found["errors"][0]["message"]
    api = allowing("shapes,someone/else")
    answer = api.client.post("/jobs", json=spec)
    assert answer.status_code == 202, answer.text


@SQLITE
def test_other_weights_of_the_catalog_need_no_place_on_the_list(allowing: Allowing) -> None:
    api = allowing("shapes")
    rewards = [{"name": "pickscore", "source": {"name": "official"}}, {"name": "aesthetic"}]
    assert api.client.post("/jobs", json=job() | {"rewards": rewards}).status_code == 202


@SQLITE
def test_judges_of_pictures_are_ruled_too(allowing: Allowing) -> None:
    api = allowing("shapes")
    judge = {"name": "pickscore", "source": OTHER}
    body = {"prompt": "a", "score_with": ["symmetry", judge]}
    found = problem(api.client.post("/generate", json=body), 422, "invalid_value")
    assert found["param"] == "score_with.1.source.id"
    upload = {"images": ("a.png", png())}
    assert api.client.post("/rewards/pickscore/score", files=upload).status_code == 202
    image_id = {"image_ids": ["img_00000000000000000000000000"], "source": OTHER}
    found = problem(
        api.client.post("/rewards/pickscore/score", json=image_id), 422, "invalid_value"
    )
    assert found["param"] == "source.id"


@SQLITE
def test_without_a_list_everything_may_be_used(allowing: Allowing) -> None:
    api = allowing(None)
    spec = job(shortcut=OTHER, init_adapter=OTHER) | {"base_model": OTHER}
    assert api.client.post("/jobs", json=spec).status_code == 202


@pytest.mark.parametrize("models", ["sd-15", "sd15,", "a/b/c", '["sd15"]', ","])
def test_a_mistyped_list_stops_the_start(models: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, models)
    api_settings.cache_clear()
    with pytest.raises(UserError, match=f"{VARIABLE}: .* is no base model of the catalog"):
        api_settings()
