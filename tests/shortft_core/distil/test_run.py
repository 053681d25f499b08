"""A whole distillation in a folder: what it leaves behind, and that it can be resumed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from shortft_core.distil.jump_lora import merged
from shortft_core.distil.run import LORA_FILE, REPORT_FILE, prompt_sources, run_distil
from shortft_core.errors import UserError, WeightsError
from shortft_core.events import Event, PhaseStarted, RunFinished, read_jsonl
from shortft_core.models.stable_diffusion import StableDiffusion
from shortft_core.schedule import CLEAN, ddim_grid
from shortft_core.shortcut_card import CARD_FILE, read_card
from shortft_core.spec import PromptSource
from shortft_core.spec.distil import DistilSpec

MakeSpec = Callable[..., DistilSpec]


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture(scope="module")
def whole(
    tiny_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Event]]:
    """A run that nothing stopped, and what it told; tests that go on with it take a copy."""
    folder, events = tmp_path_factory.mktemp("distil") / "run", list[Event]()
    assert run_distil(tiny_spec(), folder, emit=events.append) == folder
    return folder, events


@pytest.fixture
def finished(whole: tuple[Path, list[Event]], tmp_path: Path) -> Path:
    """A copy of that run."""
    return shutil.copytree(whole[0], tmp_path / "finished")


def test_the_folder_holds_everything(
    tiny_spec: MakeSpec,
    load_tiny: Callable[..., StableDiffusion],
    whole: tuple[Path, list[Event]],
) -> None:
    spec, (folder, events) = tiny_spec(), whole
    assert list(read_jsonl(folder / "events.jsonl")) == events
    phases = [event.phase for event in events if isinstance(event, PhaseStarted)]
    assert phases == ["trajectories", "training", "report"]
    card, model = read_card(folder / CARD_FILE), load_tiny()
    assert card.kind == "shortcut"
    assert card.base_sha256 == model.fingerprint
    assert card.timesteps == ddim_grid(8)
    assert card.jumps == ((376, 1),)
    assert card.guidance_scale == 3.0
    assert card.spec_sha256 == spec.sha256()
    assert card.sha256 == hashlib.sha256((folder / LORA_FILE).read_bytes()).hexdigest()
    assert card.report.trajectories == 3
    student = merged(model, folder / LORA_FILE)
    changed = [
        not torch.equal(ours, theirs)
        for ours, theirs in zip(
            student.denoiser.parameters(), model.denoiser.parameters(), strict=True
        )
    ]
    assert any(changed)
    with Image.open(folder / REPORT_FILE) as picture:
        assert picture.size == (3 * 128, 3 * 128)


def test_a_few_step_generator_jumps_from_noise_to_image(
    tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    run_distil(tiny_spec(few_step=True, updates=1), tmp_path, emit=lambda _: None)
    card = read_card(tmp_path / CARD_FILE)
    assert card.kind == "few_step"
    assert card.jumps == ((876, 376), (376, CLEAN))
    assert len(card.report.jumps) == 2


@pytest.mark.parametrize("polls", [1, 4, 7])
def test_stopped_anywhere_it_ends_in_the_same_file(
    tiny_spec: MakeSpec, whole: tuple[Path, list[Event]], tmp_path: Path, polls: int
) -> None:
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) >= polls

    spec = tiny_spec()
    parts = tmp_path / "parts"
    assert run_distil(spec, parts, emit=lambda _: None, should_stop=should_stop) is None
    assert not (parts / LORA_FILE).exists()
    assert run_distil(spec, parts, emit=lambda _: None) == parts
    assert same(load_file(parts / LORA_FILE), load_file(whole[0] / LORA_FILE))


def test_a_finished_run_is_repeated_without_training(tiny_spec: MakeSpec, finished: Path) -> None:
    before = load_file(finished / LORA_FILE)
    events: list[Event] = []
    run_distil(tiny_spec(), finished, emit=events.append)
    assert same(load_file(finished / LORA_FILE), before)
    (ended,) = (event for event in events if isinstance(event, RunFinished))
    assert ended.outcome == "completed"
    assert ended.updates == 4


def test_another_specification_is_refused(tiny_spec: MakeSpec, finished: Path) -> None:
    with pytest.raises(UserError, match="another specification"):
        run_distil(tiny_spec(seed=1), finished, emit=lambda _: None)


def test_a_wrong_path_can_be_corrected_in_the_same_folder(
    tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(WeightsError, match="model_index"):
        run_distil(tiny_spec(base_model={"path": str(tmp_path)}), folder, emit=lambda _: None)
    small = tiny_spec(trajectories=2, updates=1)
    assert run_distil(small, folder, emit=lambda _: None) == folder


def test_held_out_prompts_are_the_given_ones_or_a_split(tiny_spec: MakeSpec) -> None:
    given = tiny_spec()
    assert prompt_sources(given) == (given.prompts, PromptSource(inline=("a red star",)))
    split = tiny_spec(evaluation={})
    training, held_out = prompt_sources(split)
    assert (training.split, held_out.split) == ("train", "eval")
    assert training.inline == held_out.inline == split.prompts.inline
