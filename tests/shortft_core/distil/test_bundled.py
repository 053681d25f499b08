"""The bundled shortcut on trajectories that neither its training nor its report has seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shortft_core import models
from shortft_core.distil import jump_lora
from shortft_core.distil.jumps import Pairs, kept_times
from shortft_core.distil.report import Examiner
from shortft_core.distil.run import recorder_of
from shortft_core.distil.trajectories import load_states
from shortft_core.models import DiffusionModel
from shortft_core.schedule import plan
from shortft_core.shortcut_card import ShortcutCard, read_card
from shortft_core.spec import PromptSource, Source
from shortft_core.spec.distil import DistilEvaluation, DistilSpec
from shortft_core.weights import BUNDLED

COUNT = 2
FOLDER = BUNDLED / "shapes-shortcut"


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return models.load(Source(name="shapes"), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def card() -> ShortcutCard:
    return read_card(FOLDER / "k4.json")


def test_it_is_for_the_bundled_model_and_the_chain_of_the_paper(
    model: DiffusionModel, card: ShortcutCard
) -> None:
    assert card.base_sha256 == model.fingerprint
    assert card.jumps == ((741, 501), (481, 261), (241, 1))
    assert card.timesteps[0] == 981
    assert card.guidance_scale == 3.0


def test_its_jumps_are_closer_than_naive_ones_of_the_same_cost(
    model: DiffusionModel, card: ShortcutCard, tmp_path: Path
) -> None:
    spec = DistilSpec(
        base_model=card.base_model,
        prompts=PromptSource(name="shapes-train"),
        evaluation=DistilEvaluation(prompts=PromptSource(name="shapes-held-out")),
        batch_size=COUNT,
        seed=1,
    )
    times = kept_times(card.jumps)
    recorder = recorder_of(spec, model, "held-out", tmp_path, timesteps=card.timesteps, kept=times)
    recorder.record(0, COUNT)
    examiner = Examiner(
        base=model,
        student=jump_lora.merged(model, FOLDER / card.file),
        chain=plan(50, 4, 1),
        jumps=card.jumps,
        guidance_scale=card.guidance_scale,
        pairs=Pairs(
            states=load_states(tmp_path, recorder.recording, times, COUNT),
            times=times,
            prompt=recorder.prompt,
            alphas_cumprod=model.alphas_cumprod,
        ),
        batch_size=COUNT,
    )
    for jump, stated in zip(card.jumps, card.report.jumps, strict=True):
        found = examiner._error(jump)
        assert found.unguided_ratio < 1
        assert found.rmse < 2 * stated.rmse
