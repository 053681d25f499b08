"""The loop: exact resumption, honest stopping, and no step on broken numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shortft_core import methods, rewards
from shortft_core.artifacts import LocalStore
from shortft_core.checkpoint import Checkpoints, Manifest
from shortft_core.errors import DivergedError
from shortft_core.evaluate import Evaluator, Panel
from shortft_core.events import (
    AlertRaised,
    CheckpointSaved,
    EvaluationDone,
    Event,
    RunFinished,
    RunStarted,
    StepMetrics,
)
from shortft_core.generate import Sampler
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.spec import AlignSpec
from shortft_core.spec.read import parse_spec
from shortft_core.trainer import Trainer

LoadTiny = Callable[..., StableDiffusion]
PROMPTS = ("a red circle", "a blue star", "a red star")


def job(method: dict[str, Any] | None = None, **fields: Any) -> AlignSpec:
    options = {
        "type": "draft_k",
        "steps": 4,
        "guidance_scale": 2.0,
        "learning_rate": 1e-3,
        "accumulation": 1,
        "rank": 2,
        "batch_size": 2,
        "updates": 6,
        "checkpoint_every": 2,
    }
    content = {
        "base_model": {"path": "tiny"},
        "method": options | (method or {}),
        "rewards": [{"name": "brightness"}],
        "prompts": {"inline": list(PROMPTS)},
        "evaluation": {"every_updates": 3, "count": 2},
    }
    return parse_spec(content | fields)


class Falling:
    """A held-out judge whose liking of the tuned model can be taken away."""

    name = "judge"

    def __init__(self) -> None:
        self.penalty = 0.0
        self.seen = 0

    def score(self, images: Tensor, prompts: object, *, exact: bool = False) -> Tensor:
        self.seen += 1
        # The first panel that it sees is the base model's.
        return images.mean(dim=(1, 2, 3)) - (self.penalty if self.seen > 1 else 0.0)


class Run:
    """A trainer on the tiny model with every event kept."""

    def __init__(self, spec: AlignSpec, model: StableDiffusion, folder: Path) -> None:
        self.events: list[Event] = []
        self.stop_after: int | None = None
        self.best: list[int] = []
        self.judge = Falling()
        reward = rewards.build(spec.rewards, device=model.device, dtype=torch.float32)
        self.method = methods.build(spec.method, model=model, reward=reward, seed=spec.seed)
        store = LocalStore(folder)
        evaluator = Evaluator(
            panel=Panel(
                prompts=PROMPTS[:2], seeds=(1, 2), reward=reward, held_out={"judge": self.judge}
            ),
            tuned=Sampler(
                model=model,
                plan=self.method.inference_plan,
                guidance_scale=2.0,
                bank=self.method.bank,
            ),
            guard=spec.guard,
            store=store,
            emit=self.events.append,
            on_best=lambda: self.best.append(1),
        )
        self.trainer = Trainer(
            spec=spec,
            method=self.method,
            prompts=PROMPTS,
            evaluator=evaluator,
            checkpoints=Checkpoints(store, spec.sha256(), model.fingerprint),
            emit=self.events.append,
            should_stop=self._should_stop,
        )

    def _should_stop(self) -> bool:
        return self.stop_after is not None and self.trainer.state.update >= self.stop_after

    def go(self, stop_after: int | None = None) -> Manifest:
        self.stop_after = stop_after
        return self.trainer.run()

    def of(self, kind: type[Any]) -> Iterator[Any]:
        return (event for event in self.events if isinstance(event, kind))

    def weights(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.method.bank.parameters(1)]


@pytest.fixture
def start(load_tiny: LoadTiny, tmp_path: Path) -> Callable[..., Run]:
    def make(spec: AlignSpec, folder: str = "run") -> Run:
        return Run(spec, load_tiny(), tmp_path / folder)

    return make


def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    start: Callable[..., Run],
) -> None:
    spec = job()
    whole = start(spec, "whole")
    whole.go()
    first = start(spec, "parts")
    assert first.go(stop_after=3).update == 3
    second = start(spec, "parts")
    assert second.trainer.state.update == 3
    second.go()
    for ours, theirs in zip(second.weights(), whole.weights(), strict=True):
        assert torch.equal(ours, theirs)
    together = [e.loss for e in (*first.of(StepMetrics), *second.of(StepMetrics))]
    assert together == [e.loss for e in whole.of(StepMetrics)]


def test_training_raises_the_reward(start: Callable[..., Run]) -> None:
    run = start(job({"updates": 12, "learning_rate": 0.02, "gradient_steps": 4}))
    run.go()
    (*_, last) = run.of(EvaluationDone)
    assert last.tuned["target"].mean > last.base["target"].mean + 0.01


def test_events_tell_the_whole_story(start: Callable[..., Run]) -> None:
    run = start(job())
    run.go()
    (started,) = run.of(RunStarted)
    assert (started.updates, started.first_update) == (6, 1)
    steps = list(run.of(StepMetrics))
    assert [step.update for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {(s.evaluations_with_gradient, s.evaluations_without_gradient) for s in steps} == {
        (1, 3)
    }
    assert [step.images_seen for step in steps] == [2, 4, 6, 8, 10, 12]
    assert all(step.grad_norms[1] > 0 for step in steps)
    assert [e.update for e in run.of(EvaluationDone)] == [3, 6]
    assert [e.update for e in run.of(CheckpointSaved)] == [2, 4, 6]
    (finished,) = run.of(RunFinished)
    assert (finished.outcome, finished.updates) == ("completed", 6)


def test_every_prompt_is_seen_once_per_epoch(start: Callable[..., Run]) -> None:
    run = start(job())
    seen = [run.trainer._prompt(image) for image in range(9)]
    for epoch in range(3):
        assert sorted(seen[3 * epoch : 3 * epoch + 3]) == sorted(PROMPTS)


def test_accumulated_halves_equal_one_whole_batch(start: Callable[..., Run]) -> None:
    whole = start(job({"batch_size": 4, "updates": 1}), "whole")
    halves = start(job({"batch_size": 2, "accumulation": 2, "updates": 1}), "halves")
    whole.go()
    halves.go()
    (one,), (two,) = list(whole.of(StepMetrics)), list(halves.of(StepMetrics))
    assert two.loss == pytest.approx(one.loss, rel=1e-5)
    assert two.grad_norms[1] == pytest.approx(one.grad_norms[1], rel=1e-3)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_broken_numbers_stop_before_the_optimizer_moves(
    start: Callable[..., Run], broken: str
) -> None:
    run = start(job())
    run.go(stop_after=1)
    before = run.weights()
    if broken == "loss":
        run.trainer.method.objective.reward.parts = ((NotFinite(), 1.0),)
    else:
        run.method.bank.parameters(1)[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DivergedError, match="update 2"):
        run.go()
    for ours, theirs in zip(run.weights(), before, strict=True):
        assert torch.equal(ours, theirs)
    assert [alert.kind for alert in run.of(AlertRaised)] == ["nan"]
    assert [event.outcome for event in run.of(RunFinished)] == ["stopped", "failed"]


class NotFinite:
    """A reward that divides by zero."""

    name = "brightness"

    def score(self, images: Tensor, prompts: object, *, exact: bool = False) -> Tensor:
        return images.mean(dim=(1, 2, 3)) / 0.0


def test_the_learning_rate_warms_up(start: Callable[..., Run]) -> None:
    run = start(job({"warmup_updates": 4, "learning_rate": 0.4}))
    run.go()
    rates = [step.learning_rate for step in run.of(StepMetrics)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_a_length_in_seconds_becomes_updates_once(start: Callable[..., Run]) -> None:
    spec = job({"updates": None, "seconds": 0.001})
    run = start(spec)
    state = run.go()
    assert (state.update, state.updates) == (3, 3)
    assert start(spec).trainer.state.updates == 3


def test_the_runtime_limit_ends_the_run_with_an_evaluation_and_a_checkpoint(
    start: Callable[..., Run],
) -> None:
    spec = job({"updates": 100_000, "checkpoint_every": 1000, "rank": 1})
    spec = spec.model_copy(update={"max_runtime_seconds": 1})
    run = start(spec)
    state = run.go()
    assert 0 < state.update < 100_000
    assert [e.update for e in run.of(EvaluationDone)][-1] == state.update
    assert [e.update for e in run.of(CheckpointSaved)][-1] == state.update
    assert [e.outcome for e in run.of(RunFinished)] == ["stopped"]
    again = start(spec)
    assert again.go().update == state.update, "the limit counts the time before the resume"


@pytest.mark.parametrize(
    ("action", "updates", "after_restart"), [("none", 6, 6), ("pause", 3, 6), ("stop", 3, 3)]
)
def test_the_guard_acts_when_the_held_out_judge_falls(
    start: Callable[..., Run], action: str, updates: int, after_restart: int
) -> None:
    spec = job(guard={"action": action})
    run = start(spec)
    run.judge.penalty = 100.0
    assert run.go().update == updates
    kinds = {alert.kind for alert in run.of(AlertRaised)}
    assert kinds == {"reward_divergence"}
    assert run.best == []
    again = start(spec)
    assert again.go().update == after_restart


def test_the_base_model_is_scored_before_the_first_update(start: Callable[..., Run]) -> None:
    run = start(job())
    run.judge.penalty = float("nan")
    run.judge.seen = 1
    with pytest.raises(DivergedError, match="judge gives the base model"):
        run.go()
    assert not list(run.of(StepMetrics))
    assert [event.outcome for event in run.of(RunFinished)] == ["failed"]


def test_best_is_remembered_across_a_resume(start: Callable[..., Run]) -> None:
    spec = job({"updates": 6, "learning_rate": 0.02, "gradient_steps": 4})
    run = start(spec)
    run.go(stop_after=3)
    assert run.trainer.state.best_update == 3
    assert run.best == [1]
    again = start(spec)
    assert again.trainer.state.best_target == run.trainer.state.best_target


def test_the_last_evaluation_is_saved_though_its_update_already_was(
    start: Callable[..., Run],
) -> None:
    spec = job({"updates": 4, "checkpoint_every": 2, "learning_rate": 0.02, "gradient_steps": 4})
    run = start(spec)
    run.go()
    assert run.trainer.state.best_update == 4
    assert start(spec).trainer.state.best_update == 4
