"""The bundled shortcuts are those that their cards and figures describe."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import pytest

from shapes.train_shortcuts import CARD, JOBS, spec_of
from shortft_core.shortcut_card import read_card
from shortft_core.weights import BUNDLED

FIGURES: Final[dict[str, Any]] = json.loads(CARD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", JOBS)
def test_file_card_and_figures_belong_together(name: str) -> None:
    card = read_card(BUNDLED / f"{name}.json")
    data = (BUNDLED / f"{name}.safetensors").read_bytes()
    assert card.sha256 == hashlib.sha256(data).hexdigest()
    assert card.spec_sha256 == JOBS[name].sha256()
    figures = FIGURES["files"][name]
    assert figures["sha256"] == card.sha256
    assert figures["error_to_guided_naive"] == round(card.report.rms_ratio, 4)
    assert figures["missed_goals"] == list(card.report.missed_goals())
    assert card.report.trajectories == 128


def test_the_weights_keep_to_their_budget() -> None:
    assert sum((BUNDLED / f"{name}.safetensors").stat().st_size for name in JOBS) <= 6e6


def test_every_reward_was_compared() -> None:
    rewards = {"hps_v2", "pickscore", "clipscore", "aesthetic", "symmetry", "compressibility"}
    for figures in FIGURES["files"].values():
        assert rewards <= figures["reward_shifts_in_std"].keys()


def test_recipes_differ_only_where_the_jumps_do() -> None:
    assert spec_of(4).batch_size * 3 == 36
    assert spec_of(2).batch_size == 36
    assert spec_of(4, few_step=True).batch_size * 4 == 36
