"""Judges that see what the tuning does not, and a crop that leaves symmetry its axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from shortft_core import prompts, rewards
from shortft_core.catalog import DEFAULT_JUDGES, PRESETS, PROMPT_SETS, load, resolve
from shortft_core.catalog.tables import ORACLE_CAPTIONS
from shortft_core.errors import UserError
from shortft_core.run import held_out_judges
from shortft_core.spec import AlignSpec, PromptSource

CPU = torch.device("cpu")


def job(names: Sequence[str], base_model: str = "shapes", **changes: Any) -> AlignSpec:
    content = {
        "base_model": {"name": base_model},
        "method": {"type": "draft_k"},
        "rewards": [{"name": name} for name in names],
        "prompts": {"name": "shapes-train"},
        **changes,
    }
    return AlignSpec.model_validate(content)


def judges(spec: AlignSpec) -> tuple[str, ...] | None:
    return resolve(spec).evaluation.held_out


def refusal(spec: AlignSpec) -> UserError:
    with pytest.raises(UserError) as caught:
        resolve(spec)
    assert caught.value.remedy
    return caught.value


OPTIMISED = (
    ["pickscore"],
    ["clipscore"],
    ["hps_v2"],
    ["preference"],
    ["symmetry", "preference"],
    ["combined"],
)


@pytest.mark.parametrize("names", OPTIMISED, ids="+".join)
def test_no_default_judge_repeats_a_score_that_is_optimised(names: list[str]) -> None:
    spec = resolve(job(names))
    captions = ("a red circle on a white background", "a blue star")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    terms = rewards.build(spec.rewards, device=CPU, dtype=torch.float32).terms(images, captions)
    panel = held_out_judges(spec.evaluation.held_out or (), spec.base_model, CPU, torch.float32)
    assert panel
    for judge in panel.values():
        scores = judge.score(images, captions)
        assert not any(torch.allclose(scores, optimised) for optimised in terms.values())


@pytest.mark.parametrize(
    ("base_model", "names", "expected"),
    [
        ("shapes", ["symmetry"], ("clipscore",)),
        ("shapes", ["hps_v2"], ("clipscore",)),
        # One set of weights serves `pickscore` and `clipscore` there.
        ("shapes", ["pickscore"], ("hps_v2",)),
        ("shapes", ["clipscore"], ("hps_v2",)),
        ("shapes", ["preference"], ("oracle",)),
        ("shapes", ["combined"], ("oracle",)),
        ("sd15", ["pickscore"], ("clipscore",)),
        ("sd15", ["combined"], ("clipscore",)),
        ("sd15", ["clipscore"], ("pickscore",)),
        ("sd15", ["clipscore", "preference"], ()),
    ],
)
def test_the_default_judge_is_the_first_that_measures_nothing_optimised(
    base_model: str, names: list[str], expected: tuple[str, ...]
) -> None:
    assert judges(job(names, base_model)) == expected


def test_weights_of_another_base_model_are_another_score() -> None:
    official = {"name": "pickscore", "source": {"name": "official"}}
    assert judges(job([], rewards=[official])) == ("clipscore",)


@pytest.mark.parametrize(
    ("evaluation_prompts", "expected"),
    [
        ({"inline": ["a red circle", "A  blue star above a green ring"]}, ("oracle",)),
        ({"inline": ["a red circle", "a cat"]}, ()),
        ({"name": "shapes-held-out"}, ("oracle",)),
        ({"name": "drawbench"}, ()),
        ({"path": "captions.txt"}, ()),
    ],
)
def test_the_oracle_serves_by_default_only_where_it_can_read_the_captions(
    evaluation_prompts: dict[str, Any], expected: tuple[str, ...]
) -> None:
    spec = job(["preference"], evaluation={"prompts": evaluation_prompts})
    assert judges(spec) == expected


def test_a_guard_that_acts_is_refused_where_no_default_judge_is_left() -> None:
    spec = job(["preference"], prompts={"inline": ["a cat"]}, guard={"action": "pause"})
    assert refusal(spec).field == "guard.action"


def test_every_bundled_prompt_is_a_caption_the_oracle_can_judge() -> None:
    parse = load(ORACLE_CAPTIONS)
    for name, entry in PROMPT_SETS.items():
        if entry.bundled is not None:
            texts = prompts.load(PromptSource(name=name)).prompts
            assert all(parse(text) is not None for text in texts), name


@pytest.mark.parametrize(
    ("names", "judge", "problem"),
    [
        (["pickscore"], "clipscore", "clipscore measures what pickscore rewards"),
        (["preference"], "clipscore", "clipscore measures what preference rewards"),
        (["pickscore"], "preference", "preference measures what pickscore rewards"),
        (["compressibility"], "jpeg_size", "jpeg_size measures what compressibility rewards"),
        (["incompressibility"], "jpeg_size", "jpeg_size measures what incompressibility"),
        (["compressibility"], "incompressibility", "measures what compressibility rewards"),
        (["symmetry", "combined"], "hps_v2", "hps_v2 is optimised itself"),
        (["symmetry"], "symmetry", "symmetry is optimised itself"),
        (["symmetry"], "oracle", "oracle is named twice"),
    ],
)
def test_a_named_judge_that_measures_what_is_optimised_is_refused(
    names: list[str], judge: str, problem: str
) -> None:
    error = refusal(job(names, evaluation={"held_out": ["oracle", judge]}))
    assert error.field == "evaluation.held_out.1"
    assert problem in error.problem


def test_the_same_repository_named_by_its_id_is_the_same_score() -> None:
    pick = {"name": "clipscore", "source": {"id": "yuvalkirstain/PickScore_v1"}}
    spec = job([], "sd15", rewards=[pick], evaluation={"held_out": ["pickscore"]})
    assert refusal(spec).field == "evaluation.held_out.0"


def test_the_published_models_may_judge_each_other() -> None:
    for names, panel in (
        (["pickscore"], ["clipscore", "hps_v2", "aesthetic"]),
        (["hps_v2"], ["hps_v2_1", "pickscore"]),
        (["aesthetic"], list(DEFAULT_JUDGES)),
    ):
        assert judges(job(names, "sd15", evaluation={"held_out": panel})) == tuple(panel)


@pytest.mark.parametrize(
    ("names", "crop_margin"), [(["hps_v2"], 1 / 64), (["symmetry"], 0), (["hps_v2", "symmetry"], 0)]
)
def test_the_safe_preset_crops_nothing_beside_symmetry(
    names: list[str], crop_margin: float
) -> None:
    spec = resolve(job(names, method={"type": "draft_k", "preset": "safe"}))
    expected: Mapping[str, object] = {**PRESETS["safe"], "crop_margin": crop_margin}
    assert {field: getattr(spec.method, field) for field in expected} == expected
    assert resolve(spec) == spec


def test_a_crop_by_hand_beside_symmetry_is_refused() -> None:
    cropped = {"type": "draft_k", "crop_margin": 0.1}
    error = refusal(job(["hps_v2", "symmetry"], method=cropped))
    assert error.field == "method.crop_margin"
    assert "moves the axis" in error.problem
    assert resolve(job(["hps_v2"], method=cropped)).method.crop_margin == 0.1
    none = cropped | {"crop_margin": 0.0}
    assert resolve(job(["symmetry"], method=none)).method.crop_margin == 0
