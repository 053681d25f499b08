"""The before/after picture shows the stored pictures themselves, base above tuned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from shortft_core.artifacts import LocalStore
from shortft_core.contact_sheet import LABEL, PAPER, SIDE, contact_sheet, last_pair
from shortft_core.events import EvaluationDone, Picture, SamplePair, SamplesReady, Score
from shortft_core.generate import png_bytes

RED, BLUE = (200, 10, 10), (10, 10, 200)


def stored(folder: Path, count: int) -> tuple[LocalStore, SamplesReady, EvaluationDone]:
    store = LocalStore(folder)
    pairs = []
    for index in range(count):
        keys = {"base": RED, "tuned": BLUE}
        for name, color in keys.items():
            data = png_bytes(Image.new("RGB", (64, 64), color), {})
            store.write(f"samples/{name}/{index}.png", data)
        base, tuned = (
            Picture(key=f"samples/{name}/{index}.png", scores={"target": 0.5}) for name in keys
        )
        pairs.append(SamplePair(prompt="a red circle", seed=index, base=base, tuned=tuned))
    scores = {"target": Score(mean=0.25, std=0.1)}
    evaluation = EvaluationDone(update=9, images=count, base=scores, tuned=scores)
    return store, SamplesReady(update=9, pairs=tuple(pairs)), evaluation


def test_columns_are_pairs_and_rows_are_base_and_tuned(tmp_path: Path) -> None:
    store, samples, evaluation = stored(tmp_path, 8)
    sheet = np.asarray(contact_sheet(samples, evaluation, store, columns=3))
    for color, other in ((RED, BLUE), (BLUE, RED)):
        assert (sheet == color).all(axis=2).sum() == 3 * SIDE * SIDE
        rows = np.flatnonzero((sheet == color).all(axis=2).any(axis=1))
        others = np.flatnonzero((sheet == other).all(axis=2).any(axis=1))
        assert (rows.max() < others.min()) == (color == RED)
    assert np.flatnonzero((sheet == RED).all(axis=2).any(axis=0)).min() == LABEL
    assert tuple(sheet[0, 0]) == PAPER


def test_the_heading_is_drawn(tmp_path: Path) -> None:
    store, samples, evaluation = stored(tmp_path, 2)
    sheet = np.asarray(contact_sheet(samples, evaluation, store))
    assert (sheet[14:30, 14:300] != PAPER).any()


def test_the_last_pair_is_the_newest(tmp_path: Path) -> None:
    _, samples, evaluation = stored(tmp_path, 1)
    older = evaluation.model_copy(update={"update": 3})
    events = [older, samples.model_copy(update={"update": 3}), evaluation, samples]
    assert last_pair(events) == (samples, evaluation)
    assert last_pair([evaluation]) is None


def test_columns_are_spread_over_all_pairs(tmp_path: Path) -> None:
    store, samples, evaluation = stored(tmp_path, 7)
    for index, pair in enumerate(samples.pairs):
        picture = Image.new("RGB", (64, 64), (0, 10 * index, 0))
        store.write(pair.base.key, png_bytes(picture, {}))
    sheet = np.asarray(contact_sheet(samples, evaluation, store, columns=4))
    greens = [10 * index for index in range(7) if (sheet == (0, 10 * index, 0)).all(axis=2).any()]
    assert greens == [0, 10, 30, 50]
    assert contact_sheet(samples, evaluation, store, columns=9).width == (
        contact_sheet(samples, evaluation, store, columns=7).width
    )
