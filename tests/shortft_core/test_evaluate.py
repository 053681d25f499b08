"""The panel: base beside tuned, the alarm's rule, and what counts as best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from shortft_core.adapters import AdapterBank
from shortft_core.artifacts import LocalStore
from shortft_core.evaluate import TARGET, Evaluator, Panel, Scores, held_out_drop
from shortft_core.events import AlertRaised, EvaluationDone, Event, SamplesReady
from shortft_core.generate import Sampler
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.rewards import Composite
from shortft_core.schedule import base_plan
from shortft_core.spec import Guard

LoadTiny = Callable[..., StableDiffusion]


class Channel:
    """Mean of one color channel."""

    def __init__(self, name: str, channel: int) -> None:
        self.name, self.channel = name, channel

    def score(self, images: Tensor, prompts: Sequence[str], *, exact: bool = False) -> Tensor:
        assert exact, "reported scores are exact"
        return images[:, self.channel].mean(dim=(1, 2))


def evaluator(load_tiny: LoadTiny, folder: Path, events: list[Event]) -> Evaluator:
    model = load_tiny()
    bank = AdapterBank(model.denoiser, branches=1, rank=2)
    reward = Composite([(Channel("red", 0), 2.0)])
    return Evaluator(
        panel=Panel(
            prompts=("a red", "a blue", "a"),
            seeds=(1, 2, 3),
            reward=reward,
            held_out={"green": Channel("green", 1)},
        ),
        tuned=Sampler(
            model=model,
            plan=base_plan(4, branches=(1,)),
            guidance_scale=1.0,
            bank=bank,
            batch_size=2,
        ),
        guard=Guard(max_heldout_drop=0.5),
        store=LocalStore(folder),
        emit=events.append,
    )


def test_an_untrained_adapter_equals_the_base(load_tiny: LoadTiny, tmp_path: Path) -> None:
    events: list[Event] = []
    verdict = evaluator(load_tiny, tmp_path, events).evaluate(0, best=None)
    (done,) = (e for e in events if isinstance(e, EvaluationDone))
    assert done.base == done.tuned
    assert done.diversity is not None
    assert done.diversity.base == done.diversity.tuned > 0
    assert set(done.base) == {TARGET, "red", "green"}
    assert done.base[TARGET].mean == pytest.approx(2 * done.base["red"].mean)
    assert verdict.target == pytest.approx(done.base[TARGET].mean)
    assert verdict.is_best
    assert not verdict.alarm


def test_pictures_are_stored_before_they_are_announced(load_tiny: LoadTiny, tmp_path: Path) -> None:
    events: list[Event] = []
    judge = evaluator(load_tiny, tmp_path, events)
    judge.evaluate(7, best=None)
    (samples,) = (e for e in events if isinstance(e, SamplesReady))
    assert [pair.prompt for pair in samples.pairs] == ["a red", "a blue", "a"]
    for pair in samples.pairs:
        for picture in (pair.base, pair.tuned):
            with Image.open(BytesIO(judge.store.read(picture.key))) as image:
                assert image.info["prompt"] == pair.prompt
                red = np.asarray(image)[..., 0].mean() / 255
                assert red == pytest.approx(picture.scores["red"], abs=2e-3)


def scores(**judges: Sequence[float]) -> Scores:
    return Scores(torch.rand(3, 3, 2, 2), {n: torch.tensor(v) for n, v in judges.items()})


def test_the_drop_is_in_standard_deviations_of_the_base() -> None:
    base = scores(a=(1.0, 2.0, 3.0), b=(0.0, 0.0, 0.0))
    tuned = scores(a=(0.0, 1.0, 2.0), b=(-0.5, -0.5, -0.5))
    spread = base.std("a")
    assert spread == pytest.approx((2 / 3) ** 0.5)
    assert held_out_drop(base, tuned, ["a"]) == pytest.approx(1 / spread)
    assert held_out_drop(base, tuned, ["a", "b"]) == pytest.approx((1 / spread + 0.5) / 2)
    assert held_out_drop(base, tuned, []) == 0.0


def test_hacked_models_raise_the_alarm_and_are_never_best(
    load_tiny: LoadTiny, tmp_path: Path
) -> None:
    events: list[Event] = []
    judge = evaluator(load_tiny, tmp_path, events)
    base = judge.base
    judge.panel.held_out["green"].channel = 2  # type: ignore[attr-defined]
    fallen = {**base.judges, "green": base.judges["green"] + 10}
    judge.__dict__["base"] = Scores(base.images, fallen)
    verdict = judge.evaluate(1, best=None)
    assert verdict.alarm
    assert not verdict.is_best
    kinds = [event.kind for event in events if isinstance(event, AlertRaised)]
    assert kinds == ["reward_divergence"]


def test_images_that_have_become_one_raise_the_alarm(load_tiny: LoadTiny, tmp_path: Path) -> None:
    events: list[Event] = []
    judge = evaluator(load_tiny, tmp_path, events)
    base = judge.base
    contrast = torch.rand_like(base.images) * 100
    judge.__dict__["base"] = Scores(contrast, base.judges)
    assert judge.evaluate(1, best=None).alarm
    assert [e.kind for e in events if isinstance(e, AlertRaised)] == ["diversity_collapse"]


def test_a_panel_of_one_image_raises_no_alarm(load_tiny: LoadTiny, tmp_path: Path) -> None:
    events: list[Event] = []
    judge = evaluator(load_tiny, tmp_path, events)
    judge.panel = replace(judge.panel, prompts=("a red",), seeds=(1,))
    verdict = judge.evaluate(1, best=None)
    assert verdict.is_best
    assert not verdict.alarm


def test_scores_that_are_not_finite_are_never_best(load_tiny: LoadTiny, tmp_path: Path) -> None:
    events: list[Event] = []
    judge = evaluator(load_tiny, tmp_path, events)
    judge.prepare()
    assert judge.tuned.bank is not None
    judge.tuned.bank.parameters(1)[1].data.fill_(float("nan"))
    verdict = judge.evaluate(1, best=None)
    assert verdict.alarm
    assert not verdict.is_best
    assert [event.kind for event in events if isinstance(event, AlertRaised)] == ["nan"]


def test_a_judge_without_spread_counts_in_raw_units() -> None:
    base = scores(a=(0.9, 0.9, 0.9))
    tuned = scores(a=(0.899, 0.899, 0.899))
    assert held_out_drop(base, tuned, ["a"]) == pytest.approx(1e-3, rel=1e-3)


def test_best_needs_a_higher_target(load_tiny: LoadTiny, tmp_path: Path) -> None:
    judge = evaluator(load_tiny, tmp_path, [])
    first = judge.evaluate(0, best=None)
    assert not judge.evaluate(1, best=first.target + 1e-3).is_best
    assert judge.evaluate(1, best=first.target - 1e-3).is_best
