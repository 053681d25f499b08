"""The regression: it reaches what it is asked for, resumes to the bit, refuses broken numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shortft_core.artifacts import LocalStore
from shortft_core.checkpoint import Checkpoints
from shortft_core.distil.jump_lora import attach
from shortft_core.distil.jumps import Pairs, jumps_of, kept_times
from shortft_core.distil.training import JumpTrainer
from shortft_core.errors import DivergedError, UserError
from shortft_core.events import AlertRaised, Event, RunFinished, RunStarted
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.spec.distil import DistilSpec

MakeTrainer = Callable[..., JumpTrainer]
STATES = torch.randn(6, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).half()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def trainer(
    load_tiny: Callable[..., StableDiffusion],
    tiny_spec: Callable[..., DistilSpec],
    tmp_path: Path,
    events: list[Event],
) -> MakeTrainer:
    """A trainer on random states; `updates_before_stop` ends it early."""

    def make(
        folder: str, states: torch.Tensor = STATES, updates_before_stop: int = 99, **changes: float
    ) -> JumpTrainer:
        spec, model = tiny_spec(**changes), load_tiny()
        jumps = jumps_of(spec, model)
        made = JumpTrainer(
            spec=spec,
            lora=attach(model, rank=spec.rank, seed=spec.seed),
            jumps=jumps,
            naive_errors=[0.5] * len(jumps),
            pairs=Pairs(
                states=states,
                times=kept_times(jumps),
                prompt=lambda row: ("a red circle", "a blue star")[row % 2],
                alphas_cumprod=model.alphas_cumprod,
            ),
            checkpoints=Checkpoints(
                LocalStore(tmp_path / folder), spec.sha256(), model.fingerprint
            ),
            emit=events.append,
        )
        made.should_stop = lambda: made.state.update >= updates_before_stop
        return made

    return make


def test_the_error_falls(trainer: MakeTrainer) -> None:
    one_pair = STATES[:1]
    made = trainer("run", one_pair, updates=12, learning_rate=3e-2)
    before = made._loss(made.jumps[0]).item()
    state = made.run()
    after = made._loss(made.jumps[0]).item()
    assert state.update == 12
    assert after < 0.9 * before


def test_stopping_and_resuming_is_not_stopping(trainer: MakeTrainer, events: list[Event]) -> None:
    whole = trainer("whole")
    whole.run()
    first = trainer("parts", updates_before_stop=3)
    first.run()
    assert not first.complete
    second = trainer("parts")
    assert second.state.update == 3
    second.run()
    assert second.complete
    for ours, theirs in zip(second.average, whole.average, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(second.weights, whole.weights, strict=True):
        assert torch.equal(ours, theirs)
    outcomes = [event.outcome for event in events if isinstance(event, RunFinished)]
    assert outcomes == ["completed", "stopped", "completed"]
    assert [e.first_update for e in events if isinstance(e, RunStarted)] == [1, 1, 4]


def test_the_average_is_the_recurrence_of_its_definition(trainer: MakeTrainer) -> None:
    made = trainer("run", updates=3, checkpoint_every=99)
    expected = [w.detach().clone() for w in made.weights]
    for update in range(3):
        made._advance(made._update())
        keep = min(made.spec.ema_decay, (1 + update) / (10 + update))
        expected = [
            keep * e + (1 - keep) * w.detach() for e, w in zip(expected, made.weights, strict=True)
        ]
    for average, value in zip(made.average, expected, strict=True):
        assert torch.allclose(average, value, atol=1e-7)


def test_the_learning_rate_warms_up_and_ends_near_zero(trainer: MakeTrainer) -> None:
    made = trainer("run", updates=200)
    rates = []
    for update in range(200):
        made.state = made.state.model_copy(update={"update": update})
        rates.append(made._learning_rate())
    assert rates[0] == pytest.approx(1e-2 / 6)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[-1] < 1e-5
    assert rates[6:] == sorted(rates[6:], reverse=True)


def test_a_broken_state_stops_before_the_weights_move(
    trainer: MakeTrainer, events: list[Event]
) -> None:
    made = trainer("run", torch.full_like(STATES, torch.nan))
    before = [w.detach().clone() for w in made.weights]
    with pytest.raises(DivergedError, match="update 1; weights are unchanged"):
        made.run()
    assert all(torch.equal(a, b) for a, b in zip(before, made.weights, strict=True))
    assert [e.kind for e in events if isinstance(e, AlertRaised)] == ["nan"]
    assert [e.outcome for e in events if isinstance(e, RunFinished)] == ["failed"]


def test_another_specification_is_refused(trainer: MakeTrainer) -> None:
    trainer("run", updates=1).run()
    with pytest.raises(UserError, match="another specification"):
        trainer("run", rank=3)


def test_rows_depend_on_the_update_and_the_jump(trainer: MakeTrainer) -> None:
    made = trainer("run", torch.cat([STATES] * 20), batch_size=8)
    first = made._rows((801, 1))
    assert first == made._rows((801, 1))
    assert first != made._rows((701, 1))
    made.state = made.state.model_copy(update={"update": 1})
    assert first != made._rows((801, 1))
