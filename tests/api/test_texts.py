from __future__ import annotations

from typing import Any

import pytest

from api.texts import is_storable, unstorable
from shortft_core.spec import AlignSpec

SPEC: dict[str, Any] = {
    "base_model": {"name": "shapes"},
    "method": {"type": "draft_k", "updates": 3},
    "rewards": [{"name": "symmetry"}],
    "prompts": {"inline": ["a \N{SNOWMAN} \U0001f600"]},
    "metadata": {"team": "a"},
}


def test_whatever_utf8_writes_is_storable_but_nul() -> None:
    for text in ("", "a\n\t\x7f", "\ud7ff\ue000\uffff", "\U0010ffff"):
        assert is_storable(text)
    for text in ("\0", "a\0", "\ud800", "\udfff", "a\udc80b"):
        assert not is_storable(text)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({}, []),
        ({"name": "\0"}, ["name"]),
        ({"metadata": {"a": "b", "c\0": "d"}}, ["metadata"]),
        ({"metadata": {"a": "\0", "c": "\0"}}, ["metadata"]),
        ({"prompts": {"inline": ["\0", "a", "\0"]}}, ["prompts.inline.0", "prompts.inline.2"]),
        ({"rewards": [{"name": "hps_v2", "source": {"name": "\0"}}]}, ["rewards.0.source.name"]),
    ],
)
def test_fields_are_named_by_their_paths(change: dict[str, Any], fields: list[str]) -> None:
    spec = AlignSpec.model_validate(SPEC | change)
    assert list(unstorable(spec, "")) == fields
