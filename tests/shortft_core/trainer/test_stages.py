"""A run of several stages: resumed anywhere, ended early, timed, and stopped by broken numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from shortft_core.errors import DivergedError, PlanError
from shortft_core.events import AlertRaised, RunFinished, StepMetrics
from shortft_core.schedule import forward_units
from shortft_core.spec import AlignSpec

Start = Callable[..., Any]
Job = Callable[..., AlignSpec]
PLAIN: dict[str, Any] = {"weight_decay": 0.1, "warmup_updates": 3}


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def test_a_run_stopped_again_and_again_equals_an_uninterrupted_one(start: Start, job: Job) -> None:
    """It stops in the middle of each stage and at a border; only its folder survives."""
    spec = job(**PLAIN, ema_decay=0.6, prefix_pool=2)
    whole, parts = start(spec, "whole"), []
    final = whole.go()
    for stop in (1, 2, 3, 5, 7, 8):
        parts.append(start(spec, "parts"))
        state = parts[-1].go(stop_after=stop)
        assert state.update == stop
    losses = [step.loss for part in parts for step in part.of(StepMetrics)]
    assert losses == [step.loss for step in whole.of(StepMetrics)]
    assert [stage for part in parts for stage in part.entered()] == whole.entered() == [2, 3, 4]
    resumed = parts[-1].trainer
    assert same(parts[-1].weights(), whole.weights())
    assert same(resumed.average.averages, whole.trainer.average.averages)
    totals = {"update", "images", "evaluations_with_gradient", "stage", "stage_starts"}
    assert resumed.state.model_dump(include=totals) == final.model_dump(include=totals)


def test_totals_count_the_whole_run(start: Start, job: Job) -> None:
    """Also where no average is kept and every prefix is made anew."""
    spec = job(**PLAIN)
    whole, first = start(spec, "whole"), start(spec)
    whole.go()
    first.go(stop_after=3)
    resumed = start(spec)
    resumed.go()
    losses = [step.loss for part in (first, resumed) for step in part.of(StepMetrics)]
    assert losses == [step.loss for step in whole.of(StepMetrics)]
    assert same(resumed.weights(), whole.weights())
    (finished,) = resumed.of(RunFinished)
    # Two updates of each stage: (7, 1), (5, 3), (3, 5) and (1, 7) evaluations.
    assert (finished.updates, finished.images_seen) == (8, 8)
    assert finished.evaluations_with_gradient == 2 * (7 + 5 + 3 + 1)
    assert finished.evaluations_without_gradient == 2 * (1 + 3 + 5 + 7)
    assert finished.seconds >= resumed.trainer.state.seconds > 0


def test_a_pool_samples_each_prefix_once_per_stage(start: Start, job: Job) -> None:
    run = start(job(prefix_pool=2, updates=12))
    run.go()
    made = [step.evaluations_without_gradient for step in run.of(StepMetrics)]
    # Three updates a stage on two images: the last is spared, later stages add two steps.
    assert made == [1, 1, 1, 3, 3, 0, 2, 2, 0, 2, 2, 0]


def test_stages_begin_where_the_shares_say(start: Start, job: Job) -> None:
    run = start(job(stage_shares=[0.5, 0.2, 0.2, 0.1]))
    run.go()
    assert run.stages() == list(enumerate([1, 1, 1, 1, 2, 2, 3, 4], start=1))
    norms = [sorted(step.grad_norms) for step in run.of(StepMetrics)]
    assert norms == [[1, 2, 3, 4]] * 4 + [[2, 3, 4]] * 2 + [[3, 4], [4]]


def test_the_stored_switches_are_followed_not_computed_again(start: Start, job: Job) -> None:
    spec = job()
    first = start(spec)
    first.go(stop_after=1)
    assert first.trainer.state.stage_starts == (0, 2, 4, 6)
    first.trainer._set(stage_starts=(0, 3, 4, 7))
    first.trainer._save()
    resumed = start(spec)
    resumed.go()
    assert resumed.stages() == list(enumerate([1, 1, 2, 3, 3, 3, 4], start=2))


def test_a_frozen_branch_stays_as_it_was(start: Start, job: Job) -> None:
    run = start(job(weight_decay=0.5))
    run.go(stop_after=2)
    before = [w.detach().clone() for w in run.method.bank.parameters(1)]
    moving = [w.detach().clone() for w in run.method.bank.parameters(2)]
    run.go(stop_after=5)
    assert same(before, run.method.bank.parameters(1))
    assert not same(moving, run.method.bank.parameters(2))


def test_the_average_is_what_freezes(start: Start, job: Job) -> None:
    run = start(job(ema_decay=0.6))
    run.go(stop_after=2)
    bank, length = run.method.bank, len(run.method.bank.parameters(1))
    averaged = [average.clone() for average in run.trainer.average.averages[:length]]
    assert not same(averaged, bank.parameters(1))
    run.go(stop_after=3)
    assert same(averaged, bank.parameters(1))
    assert not same(run.trainer.average.averages[length : 2 * length], bank.parameters(2))
    with run.trainer.averaged():
        assert same(averaged, bank.parameters(1))


def test_a_flat_reward_ends_its_stage_and_shortens_the_run(start: Start, job: Job) -> None:
    run = start(job(stage_switch="plateau", updates=80, stage_shares=[0.5, 0.25, 0.125, 0.125]))
    assert run.trainer.state.stage_starts == (0, 40, 60, 70)
    run.constant_reward(1.0)
    run.trainer._set(stage_rewards=(1.0,) * 19)
    state = run.go(stop_after=3)
    # The twentieth equal reward is that of update 1; each later stage keeps its planned length.
    assert (state.stage_starts, state.updates) == ((0, 1, 21, 31), 41)
    assert run.stages() == [(1, 1), (2, 2), (3, 2)]
    assert len(state.stage_rewards) == 2


@pytest.mark.parametrize(("switch", "reward"), [("shares", 1.0), ("plateau", 2.0)])
def test_a_rising_reward_or_fixed_shares_keep_the_stage(
    start: Start, job: Job, switch: str, reward: float
) -> None:
    run = start(job(stage_switch=switch, updates=80))
    run.constant_reward(reward)
    run.trainer._set(stage_rewards=(1.0,) * 19)
    state = run.go(stop_after=2)
    assert (state.stage_starts, state.updates, state.stage) == ((0, 20, 40, 60), 80, 1)


def test_a_plateau_survives_a_resume(start: Start, job: Job) -> None:
    spec = job(stage_switch="plateau", updates=80)
    first = start(spec)
    first.trainer._set(stage_rewards=(1.0,) * 18)
    first.constant_reward(1.0)
    first.go(stop_after=1)
    second = start(spec)
    second.constant_reward(1.0)
    assert second.go(stop_after=3).stage_starts == (0, 2, 22, 42)
    assert second.stages() == [(2, 1), (3, 2)]


def test_later_stages_are_priced_by_their_evaluations(start: Start, job: Job) -> None:
    run = start(job(updates=None, seconds=400.0))
    trainer, method = run.trainer, run.method
    costs = []
    for stage in (1, 2, 3, 4):
        method.enter_stage(stage)
        costs.append(forward_units(method.training_plan(), method.guidance_scale))
    method.enter_stage(1)
    assert costs == [35, 30, 25, 20]
    trainer._durations = [1.0, 2.0, 3.0]
    trainer._set(update=3)
    trainer._calibrate()
    assert trainer.state.updates == round(400 / (2 * sum(costs) / 4 / costs[0]))
    length = trainer.state.updates
    assert trainer.state.stage_starts == tuple(round(length * part / 4) for part in range(4))
    assert method.stage == 1
    assert all(w.requires_grad for w in trainer._parameters())


def test_every_stage_trains_however_short_the_time_is(start: Start, job: Job) -> None:
    """The three updates of the calibration belong to stage 1, whatever its share is."""
    spec = job(updates=None, seconds=0.001, stage_shares=[0.01, 0.01, 0.01, 0.97])
    run = start(spec)
    state = run.go()
    assert sorted({stage for _, stage in run.stages()}) == [1, 2, 3, 4]
    assert state.update == state.updates
    again = start(spec).trainer.state
    assert (again.updates, again.stage_starts) == (state.updates, state.stage_starts)


def test_calibration_that_is_interrupted_is_made_after_the_resume(start: Start, job: Job) -> None:
    """Here with the default shares."""
    spec = job(updates=None, seconds=0.001, stage_shares=None)
    first = start(spec)
    assert first.go(stop_after=2).updates is None
    second = start(spec)
    state = second.go()
    assert state.updates == state.update >= 5
    assert sorted({stage for run in (first, second) for _, stage in run.stages()}) == [1, 2, 3, 4]


class NotFinite:
    name = "brightness"

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        return images.mean(dim=(1, 2, 3)) / 0.0


def test_broken_numbers_stop_a_later_stage_before_the_optimizer_moves(
    start: Start, job: Job
) -> None:
    run = start(job())
    reward, weight = run.method.objective.reward, run.method.bank.parameters(4)[1]
    whole = reward.parts
    for update in (3, 7):
        run.go(stop_after=update)
        reward.parts = ((NotFinite(), 1.0),)
        refuse_to_go_on(run, "loss")
        reward.parts = whole
        hook = weight.register_hook(lambda gradient: gradient * float("nan"))
        refuse_to_go_on(run, "gradient")
        hook.remove()


def refuse_to_go_on(run: Any, broken: str) -> None:
    update, before = run.trainer.state.update, run.weights()
    run.events.clear()
    with pytest.raises(DivergedError, match=f"the {broken} of update {update + 1}"):
        run.go()
    assert same(run.weights(), before)
    assert run.trainer.state.update == update
    assert [alert.judge for alert in run.of(AlertRaised)] == [broken]


def test_fewer_updates_than_stages_are_refused_before_the_first(start: Start, job: Job) -> None:
    with pytest.raises(PlanError, match="3 updates cannot be shared by 4 stages"):
        start(job(updates=3))
