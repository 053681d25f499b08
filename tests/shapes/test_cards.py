"""The committed figures belong to the committed weights."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from shapes.measure_judges import CARD
from shortft_core.weights import BUNDLED

JUDGES = ("oracle", "shapes-pick", "shapes-hps", "shapes-aesthetic")


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CARD.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("judge", JUDGES)
def test_the_card_was_measured_on_the_files_of_the_package(
    card: dict[str, Any], judge: str
) -> None:
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (BUNDLED / judge).iterdir()
    }
    assert {name: file["sha256"] for name, file in card[judge]["files"].items()} == hashes


def test_the_oracle_reads_every_attribute_of_rendered_images(card: dict[str, Any]) -> None:
    figures = card["oracle"]["trained_pairs"]
    assert figures["images"] >= 4000
    attributes = ("shape", "color", "size", "relation", "background", "count")
    assert all(figures[attribute] >= 0.97 for attribute in attributes)


@pytest.mark.parametrize(
    ("judge", "megabytes"),
    [("oracle", 1.0), ("shapes-pick", 4.0), ("shapes-hps", 8.0), ("shapes-aesthetic", 2.5)],
)
def test_weights_keep_to_their_budget(card: dict[str, Any], judge: str, megabytes: float) -> None:
    assert sum(file["bytes"] for file in card[judge]["files"].values()) <= megabytes * 1e6
