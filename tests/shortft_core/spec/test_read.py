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
