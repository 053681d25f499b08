"""Specification files: every mistake is named by field, with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shortft_core.errors import UnknownNameError, UserError
from shortft_core.spec.read import parse_spec, read_spec

VALID: dict[str, Any] = {
    "base_model": {"name": "shapes"},
    "method": {"type": "draft_k"},
    "rewards": [{"name": "symmetry"}],
    "prompts": {"name": "shapes-train"},
}


def test_yaml_and_json_give_the_same_specification(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "base_model: {name: shapes}\nmethod: {type: draft_k}\n"
        "rewards: [{name: symmetry}]\nprompts: {name: shapes-train}\n"
    )
    (tmp_path / "a.json").write_text(parse_spec(VALID).model_dump_json())
    assert read_spec(tmp_path / "a.yaml") == read_spec(tmp_path / "a.json") == parse_spec(VALID)


def test_an_unknown_reward_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean symmetry") as caught:
        parse_spec(VALID | {"rewards": [{"name": "symetry"}]})
    assert caught.value.field == "rewards.0.name"


def test_an_unknown_method_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean draft_k") as caught:
        parse_spec(VALID | {"method": {"type": "draftk"}})
    assert caught.value.field == "method.type"


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"hyperparameters": {}}, "hyperparameters", "Extra inputs"),
        ({"rewards": []}, "rewards", "at least 1 item"),
        ({"rewards": [{"name": "symmetry"}] * 2}, "rewards", "named twice"),
        ({"base_model": {}}, "base_model", "exactly one of name, id, path"),
        ({"base_model": {"name": "shapes", "revision": "x"}}, "base_model", "belongs to id"),
        ({"prompts": {"name": "a", "inline": ["b"]}}, "prompts", "exactly one"),
        ({"method": {"type": "draft_k", "rank": 0}}, "method.rank", "greater than or equal"),
        (
            {"method": {"type": "draft_k", "updates": 1, "seconds": 1}},
            "method",
            "updates or seconds, not both",
        ),
        (
            {"method": {"type": "draft_k", "steps": 4, "gradient_steps": 5}},
            "method",
            "cannot exceed steps",
        ),
        ({"rewards": [{"name": "symmetry", "weight": float("nan")}]}, "rewards.0", "finite"),
    ],
)
def test_mistakes_name_their_field(change: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        parse_spec(VALID | change)
    assert caught.value.field.startswith(field)


def test_all_mistakes_are_counted() -> None:
    with pytest.raises(UserError, match="3 more mistakes"):
        parse_spec({"method": {"type": "draft_k", "rank": 0}})


@pytest.mark.parametrize("text", ["- a list\n", "a: [unclosed\n", ""])
def test_files_that_hold_no_mapping_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(UserError, match=r"holds no mapping|is not YAML"):
        read_spec(tmp_path / "job.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_spec(tmp_path / "none.yaml")


SHORTFT: dict[str, Any] = {"type": "shortft"}


@pytest.mark.parametrize(
    ("method", "field", "problem"),
    [
        (SHORTFT | {"rank": 0}, "method.rank", "greater than or equal to 1"),
        (SHORTFT | {"guidance_scale": 0.5}, "method.guidance_scale", "greater than or equal"),
        (SHORTFT | {"shortcut_guidance": 0}, "method.shortcut_guidance", "greater than or equal"),
        (SHORTFT | {"learning_rte": 1}, "method.learning_rte", "Extra inputs"),
        (SHORTFT | {"stage_shares": [0.5] * 4}, "method", "stage_shares sum to 2, not to 1"),
        (SHORTFT | {"stage_shares": [0.5] * 2}, "method", "one share per segment"),
        (SHORTFT | {"stage_shares": [1.5, -0.5, 0.5, -0.5]}, "method", "must all be positive"),
        (SHORTFT | {"stage_shares": ["a"]}, "method.stage_shares.0", "valid number"),
        (SHORTFT | {"segments": 51}, "method", "segments cannot exceed steps"),
        (SHORTFT | {"scope": "last"}, "method.scope", "Did you mean last_step"),
        (SHORTFT | {"shortcut": {}}, "method.shortcut", "exactly one of name, id, path"),
        (SHORTFT | {"reward_threshold": "atuo"}, "method.reward_threshold", "number"),
        (SHORTFT | {"prefix_pool": 3}, "method", "multiple of batch_size"),
        (SHORTFT | {"prefix_pool": 4, "scope": "segment"}, "method", "drop it beside scope"),
        ({"rank": 4}, "method.type", "it is missing"),
        ({"type": "shortf"}, "method.type", "Did you mean shortft"),
        ({"type": "refl", "last_mid_step": 40}, "method", "last_mid_step < training_steps"),
        ({"type": "alignprop", "cut_step": 3}, "method", "cut_step belongs to cut: fixed"),
        ({"type": "drtune", "trained_steps": 51}, "method", "trained_steps"),
        ({"type": "draft_lv", "noised_copies": -1}, "method.noised_copies", "greater than"),
        ({"type": "direct", "few_step": {"id": "x"}}, "method.few_step.id", "pattern"),
    ],
)
def test_a_mistake_in_a_method_has_the_path_that_the_user_wrote(
    method: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        parse_spec(VALID | {"method": method})
    assert caught.value.field == field


def test_nothing_may_be_tuned_on_the_oracle() -> None:
    with pytest.raises(UserError, match=r"Name it in evaluation\.held_out") as caught:
        parse_spec(VALID | {"rewards": [{"name": "symmetry"}, {"name": "oracle"}]})
    assert caught.value.field == "rewards.1.name"
