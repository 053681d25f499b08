"""Every method still computes the losses that were recorded; `make golden` records them anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shortft_core import catalog
from tests.golden.traces import FOLDER, METHODS, UPDATES, record


@pytest.mark.parametrize("name", METHODS)
def test_the_losses_are_those_that_were_recorded(name: str, tmp_path: Path) -> None:
    recorded = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    trace = record(name, tmp_path)
    assert len(trace) == len(recorded) == UPDATES
    for ours, theirs in zip(trace, recorded, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-7)
        assert ours["gradient_norm"] > 0


def test_every_method_of_the_catalog_is_recorded() -> None:
    assert set(METHODS) == set(catalog.METHODS)
    assert {path.stem for path in FOLDER.glob("*.json")} == set(METHODS)
