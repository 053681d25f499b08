"""Run folders as a run writes them, with numbers that a test can check by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shortft_core.artifacts import LocalStore
from shortft_core.events import (
    Diversity,
    EvaluationDone,
    Event,
    Picture,
    RunFinished,
    RunStarted,
    SamplePair,
    SamplesReady,
    Score,
    StepMetrics,
    jsonl_sink,
)

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "kind": "align",
    "base_model": {"name": "shapes"},
    "method": {"type": "draft_k", "rank": 4, "max_grad_norm": 1.0},
    "rewards": [{"name": "hps_v2", "weight": 1.0}, {"name": "symmetry", "weight": 0.5}],
    "prompts": {"name": "shapes-train"},
    "name": "a job",
}
PROMPTS = ("a red circle", "a blue star")

Write = Callable[..., Path]


def at(seconds: float) -> datetime:
    """A moment of the run."""
    return BEGAN + timedelta(seconds=seconds)


def step(update: int, **changes: Any) -> StepMetrics:
    """Two seconds and four images an update; the second half is stage 2."""
    fields: dict[str, Any] = {
        "created_at": at(10 + 2 * update),
        "update": update,
        "loss": -0.1 * update,
        "reward": 0.1 * update,
        "terms": {"hps_v2": 0.1 * update, "symmetry": -0.2},
        "grad_norms": {1: 0.5, 2: 0.05},
        "learning_rate": 1e-3,
        "seconds": 2.0,
        "evaluations_with_gradient": 3,
        "evaluations_without_gradient": 7,
        "images_seen": 4 * update,
        "stage": 1 if update <= 2 else 2,
        "stages": 2,
        "shares": {"hps_v2": 0.75, "symmetry": 0.25},
        "peak_memory_bytes": update * 2**20,
        "wall_seconds": 10.0 + 2 * update,
    }
    return StepMetrics(**fields | changes)


def evaluation(update: int, base: float, tuned: float, *, is_best: bool) -> EvaluationDone:
    return EvaluationDone(
        created_at=at(11 + 2 * update),
        update=update,
        images=2,
        base={"target": Score(mean=base, std=0.1), "oracle": Score(mean=0.5, std=0.1)},
        tuned={"target": Score(mean=tuned, std=0.1), "oracle": Score(mean=0.25, std=0.1)},
        is_best=is_best,
        diversity=Diversity(base=0.4, tuned=0.4 - update / 100),
    )


def samples(store: LocalStore, update: int, changes: Sequence[float]) -> SamplesReady:
    """One pair per prompt: the tuned picture scores 0.5 plus its change."""
    pairs = []
    for index, (prompt, gained) in enumerate(zip(PROMPTS, changes, strict=True)):
        made = {"base": 0.5, f"{update:06d}": 0.5 + gained}
        shown = {}
        for folder, score in made.items():
            key = f"samples/{folder}/{index:03d}.png"
            store.write(key, png(64, (update, index, 9)))
            shown[folder] = Picture(key=key, scores={"target": score, "oracle": 1.0})
        base, tuned = shown.values()
        pairs.append(SamplePair(prompt=prompt, seed=index, base=base, tuned=tuned))
    return SamplesReady(created_at=at(11 + 2 * update), update=update, pairs=tuple(pairs))


def png(side: int, color: tuple[int, int, int]) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a run folder from events; fields of `changes` replace those of the specification."""

    def write(events: Sequence[Event], **changes: Any) -> Path:
        (tmp_path / "spec.json").write_text(json.dumps(SPEC | changes))
        sink = jsonl_sink(tmp_path / "events.jsonl")
        for event in events:
            sink(event)
        return tmp_path

    return write


@pytest.fixture
def whole_run(write: Write, tmp_path: Path) -> Path:
    """Four updates in two stages, two evaluations, the first of them the best."""
    store = LocalStore(tmp_path)
    return write(
        [
            RunStarted(created_at=BEGAN, spec_sha256="a" * 64, updates=4),
            step(1),
            step(2),
            evaluation(2, 0.5, 0.75, is_best=True),
            samples(store, 2, (0.125, 0.375)),
            step(3),
            step(4),
            evaluation(4, 0.5, 0.25, is_best=False),
            samples(store, 4, (-0.125, -0.375)),
            RunFinished(
                created_at=at(30), outcome="completed", updates=4, best_update=2, seconds=30.0
            ),
        ]
    )
