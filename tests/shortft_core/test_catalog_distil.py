from __future__ import annotations

from typing import Any

import pytest

from shortft_core.catalog import resolve_distil, resolve_job
from shortft_core.errors import UnknownNameError
from shortft_core.spec import PromptSource, Source
from shortft_core.spec.read import parse_job


def _spec(**changes: Any) -> Any:
    content = {
        "kind": "distil",
        "base_model": {"name": "shapes"},
        "prompts": {"name": "shapes-train"},
        "evaluation": {"rewards": [{"name": "hps_v2"}, {"name": "symmetry"}]},
    }
    return parse_job({**content, **changes})


def test_a_distillation_leaves_nothing_open_and_resolving_is_idempotent() -> None:
    resolved = resolve_distil(_spec())
    assert resolved.guidance_scale == 3.0
    assert resolved.prompts == PromptSource(name="shapes-train")
    assert resolved.evaluation.prompts == PromptSource(name="shapes-eval")
    assert [getattr(judge, "source", None) for judge in resolved.evaluation.rewards] == [
        Source(name="shapes"),
        None,
    ]
    assert resolve_job(resolved) == resolved


def test_prompts_without_a_held_out_set_are_split() -> None:
    resolved = resolve_distil(_spec(prompts={"inline": ["a red star", "a blue ring"]}))
    assert resolved.prompts.split == "train"
    assert resolved.evaluation.prompts is not None
    assert resolved.evaluation.prompts.split == "eval"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base_model": {"name": "shape"}}, "base_model.name"),
        ({"prompts": {"name": "shapes-trian"}}, "prompts.name"),
        ({"evaluation": {"prompts": {"name": "shapes-evil"}}}, "evaluation.prompts.name"),
        (
            {"evaluation": {"rewards": [{"name": "hps_v2", "source": {"name": "shapez"}}]}},
            "evaluation.rewards.0.source.name",
        ),
    ],
)
def test_an_unknown_name_is_reported_with_its_path(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve_distil(_spec(**changes))
    assert caught.value.field == field
