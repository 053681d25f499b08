from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from shortft_core import settings as core
from tests.api.conftest import SPEC, Api, Opened, problem
from tests.api.works import png


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Downloads are switched off, and the caches are empty folders."""
    monkeypatch.setenv("SHORTFT_OFFLINE", "1")
    monkeypatch.setenv("SHORTFT_CACHE_DIR", str(tmp_path / "cache"))
    core.settings.cache_clear()
    yield tmp_path
    core.settings.cache_clear()


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_a_machine_without_network_names_the_missing_files(offline: Path, open_api: Opened) -> None:
    api = open_api(hub_cache=offline)
    assert api.client.post("/jobs", json=SPEC).status_code == 202
    spec = SPEC | {
        "base_model": {"name": "sd15"},
        "rewards": [{"name": "aesthetic"}],
        "evaluation": {"held_out": ["hps_v2"]},
    }
    for path in ("/jobs", "/jobs/validate"):
        body = problem(api.client.post(path, json=spec), 422, "model_not_available_offline")
        found = {mistake["pointer"]: mistake for mistake in body["errors"]}
        assert set(found) == {
            "/base_model/name", "/rewards/0/source", "/evaluation/held_out/0",
        }  # fmt: skip
        assert {mistake["code"] for mistake in found.values()} == {"model_not_available_offline"}
        assert "sac+logos+ava1-l14-linearMSE.pth" in found["/rewards/0/source"]["message"]
    alone = SPEC | {"base_model": {"id": "someone/model"}}
    body = problem(api.client.post("/jobs", json=alone), 422, "model_not_available_offline")
    assert body["param"] == "base_model.id"
    assert "someone/model/model_index.json" in body["detail"]


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_pictures_and_scores_need_their_files_too(offline: Path, open_api: Opened) -> None:
    api = open_api(hub_cache=offline)
    assert api.client.post("/generate", json={"prompt": "a"}).status_code == 202
    body = {"prompt": "a", "base_model": "sd15", "score_with": ["symmetry", "hps_v2"]}
    refused = problem(api.client.post("/generate", json=body), 422, "model_not_available_offline")
    pointers = [mistake["pointer"] for mistake in refused["errors"]]
    assert pointers == ["/base_model/name", "/score_with/1/source"]
    upload = {"images": ("a.png", png())}
    assert api.client.post("/rewards/symmetry/score", files=upload).status_code == 202
    answer = api.client.post("/rewards/clipscore/score", files=upload)
    refused = problem(answer, 422, "model_not_available_offline")
    assert refused["param"] == "source"
    # Nothing is stored for what is refused.
    assert len(api.service.objects.list("uploads/")) == 1


PATHS: Final[list[tuple[str, bool]]] = [
    ("model", True), ("folder/model", True), ("./model", True), ("absent", False), ("", False),
    ("../outside", False), ("folder/../../outside", False), ("/etc/passwd", False),
    ("link", False), ("a\0b", False), ("x" * 5000, False),
]  # fmt: skip


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_paths_stay_below_the_folder_of_models(tmp_path: Path, open_api: Opened) -> None:
    folder = tmp_path / "models"
    (folder / "folder").mkdir(parents=True)
    for name in ("models/model", "models/folder/model", "outside"):
        (tmp_path / name).touch()
    (folder / "link").symlink_to(tmp_path / "outside")
    api: Api = open_api(model_dir=folder)
    for path, is_accepted in PATHS:
        spec: dict[str, Any] = SPEC | {
            "base_model": {"path": path},
            "evaluation": {"held_out": []},
        }
        answer = api.client.post("/jobs/validate", json=spec)
        assert answer.status_code == (200 if is_accepted else 422), (path[:40], answer.text)
        if is_accepted:
            whole = Path(answer.json()["spec"]["base_model"]["path"])
            assert whole.samefile(folder / path)
        else:
            assert answer.json()["param"] == "base_model.path"
