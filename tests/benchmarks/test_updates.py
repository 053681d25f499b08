"""What is timed is what the trainer does."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.updates import Tuning, build, job
from shortft_core.artifacts import LocalStore
from shortft_core.checkpoint import Checkpoints
from shortft_core.evaluate import Evaluator, Panel
from shortft_core.events import Event
from shortft_core.generate import Sampler
from shortft_core.spec import DRTune
from shortft_core.trainer import Trainer

SPEC = job(DRTune(steps=3, trained_steps=2, rank=2, batch_size=2, updates=2, max_grad_norm=1e-3))


def silence(event: Event) -> None:
    """Hears nothing."""


def trainer_of(tuning: Tuning, folder: Path) -> Trainer:
    method, store = tuning.method, LocalStore(folder)
    panel = Panel(prompts=(), seeds=(), reward=method.objective.reward, held_out={})
    sampler = Sampler(model=method.model, plan=method.inference_plan, guidance_scale=3.0)
    return Trainer(
        spec=SPEC,
        method=method,
        prompts=tuning.prompts,
        evaluator=Evaluator(
            panel=panel, tuned=sampler, guard=SPEC.guard, store=store, emit=silence
        ),
        checkpoints=Checkpoints(store, SPEC.sha256(), method.model.fingerprint),
        emit=silence,
    )


def test_an_update_equals_that_of_the_trainer(tmp_path: Path) -> None:
    ours, theirs = Tuning(SPEC, build(SPEC)), Tuning(SPEC, build(SPEC))
    trainer = trainer_of(theirs, tmp_path)
    trainer._began = 0.0
    before = [weight.clone() for weight in ours.method.bank.parameters(1)]
    for _ in range(2):
        ours.update(trainer._batch(0))
        outcomes, _ = trainer._update()
        trainer._advance(outcomes, 0.0)
    pairs = zip(ours.method.bank.parameters(1), theirs.method.bank.parameters(1), strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs)
    moved = zip(before, ours.method.bank.parameters(1), strict=True)
    assert not all(torch.equal(old, new) for old, new in moved)


def test_batches_differ_and_repeat() -> None:
    tuning = Tuning(SPEC, build(SPEC))
    assert tuning.batch(3) == tuning.batch(3)
    first, second = tuning.batch(0), tuning.batch(1)
    assert not set(first.seeds) & set(second.seeds)
    assert first.draw != second.draw


def test_timing_counts_the_forwards_that_were_made() -> None:
    tuning = Tuning(SPEC, build(SPEC))
    timed = tuning.timed(tuning.batch(0))
    assert timed.units == 2 * 3 + 4 * 2
    assert timed.seconds > 0
