"""Which distillations can be asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shortft_core import schedule
from shortft_core.spec.distil import DistilSpec


def spec(**fields: Any) -> DistilSpec:
    return DistilSpec.model_validate(
        {"base_model": {"name": "shapes"}, "prompts": {"inline": ["a red circle"]}, **fields}
    )


@given(st.integers(1, 60), st.integers(1, 60))
def test_every_accepted_shortcut_jumps_in_all_segments_but_the_first(
    steps: int, segments: int
) -> None:
    try:
        spec(steps=steps, segments=segments)
    except ValidationError:
        assert segments < 2 or steps < 2 * segments
        return
    pairs = schedule.jumps(schedule.plan(steps, segments, 1))
    assert len(pairs) == segments - 1


@given(st.integers(1, 60), st.integers(1, 60))
def test_every_accepted_few_step_generator_shortens_the_chain(steps: int, segments: int) -> None:
    try:
        spec(steps=steps, segments=segments, few_step=True)
    except ValidationError:
        assert segments >= steps
        return
    assert len(schedule.few_step_plan(segments, spacing="segments", steps=steps)) < steps


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segments": 1}, "segments must be above 1"),
        ({"segments": 4, "steps": 7}, "needs 8 steps"),
        ({"segments": 4, "steps": 4, "few_step": True}, "needs more than that many steps"),
        ({"guidance_scale": 0.5}, "greater than or equal to 1"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"rank": 0}, "greater than or equal to 1"),
        ({"evaluation": {"count": 1}}, "greater than or equal to 2"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_illegal_values_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**fields)


def test_the_hash_is_that_of_the_content() -> None:
    assert spec(seed=1).sha256() == spec(seed=1).sha256()
    assert spec(seed=1).sha256() != spec(seed=2).sha256()


def test_it_survives_json() -> None:
    original = spec(few_step=True, evaluation={"rewards": [{"name": "hps_v2"}]})
    assert DistilSpec.model_validate_json(original.model_dump_json()) == original
