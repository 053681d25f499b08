"""What is recorded is the chain that the product samples with, and it can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shortft_core.distil.run import recorder_of
from shortft_core.distil.trajectories import Recorder, load_states, record_all
from shortft_core.errors import ArtifactError
from shortft_core.generate import base_sampler
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.schedule import CLEAN, ddim_grid
from shortft_core.spec.distil import DistilSpec

GRID = ddim_grid(8)


@pytest.fixture
def recorder(
    load_tiny: Callable[..., StableDiffusion],
    tiny_spec: Callable[..., DistilSpec],
    tmp_path: Path,
) -> Recorder:
    return recorder_of(
        tiny_spec(),
        load_tiny(),
        "training",
        tmp_path / "chunks",
        timesteps=GRID,
        kept=(*GRID, CLEAN),
    )


def test_the_last_state_is_the_latent_of_the_sampled_image(recorder: Recorder) -> None:
    list(record_all(recorder, 3))
    states = load_states(recorder.folder, recorder.recording, [GRID[0], CLEAN], 3)
    assert states.shape == (3, 2, 4, 8, 8)
    assert states.dtype == torch.float16
    sampler = base_sampler(recorder.model, steps=8, guidance_scale=3.0)
    images = sampler.images(
        [recorder.prompt(n) for n in range(3)], [recorder.seed(n) for n in range(3)]
    )
    recorded = recorder.model.decode(states[:, 1].float()).clamp(0, 1)
    assert torch.allclose(recorded, images, atol=2e-3)


def test_chunks_do_not_depend_on_who_records_them(recorder: Recorder, tmp_path: Path) -> None:
    assert list(record_all(recorder, 5)) == [2, 4, 5]
    other = replace(recorder, folder=tmp_path / "other")
    for first in (4, 0, 2):
        other.record(first, 5)
    times = [GRID[3], CLEAN]
    ours = load_states(recorder.folder, recorder.recording, times, 5)
    theirs = load_states(other.folder, other.recording, times, 5)
    assert torch.equal(ours, theirs)
    assert len(ours) == 5


def test_a_stopped_recording_goes_on(recorder: Recorder) -> None:
    answers = iter([False, True])
    assert list(record_all(recorder, 6, should_stop=lambda: next(answers))) == [2]
    assert recorder.missing(6) == [2, 4]
    assert list(record_all(recorder, 6)) == [4, 6]
    assert recorder.missing(6) == []


def test_a_gap_is_refused(recorder: Recorder) -> None:
    for first in (0, 4):
        recorder.record(first, 6)
    assert len(load_states(recorder.folder, recorder.recording, [CLEAN], 2)) == 2
    with pytest.raises(ArtifactError, match="holds 2 of 6 trajectories in a row"):
        load_states(recorder.folder, recorder.recording, [CLEAN], 6)


def test_an_empty_folder_is_refused(recorder: Recorder) -> None:
    with pytest.raises(ArtifactError, match="holds 0 of 2 trajectories"):
        load_states(recorder.folder, recorder.recording, [CLEAN], 2)


def test_chunks_of_another_recording_are_refused(recorder: Recorder) -> None:
    recorder.record(0, 2)
    other = recorder.recording.model_copy(update={"guidance_scale": 4.0})
    with pytest.raises(ArtifactError, match="another recording"):
        load_states(recorder.folder, other, [CLEAN], 2)


def test_roles_have_seeds_of_their_own(recorder: Recorder) -> None:
    held_out = replace(
        recorder, recording=recorder.recording.model_copy(update={"role": "held-out"})
    )
    ours = {recorder.seed(n) for n in range(50)}
    assert len(ours | {held_out.seed(n) for n in range(50)}) == 100
