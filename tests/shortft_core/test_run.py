"""A whole job in a folder: what it leaves behind, and that it can be resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from shortft_core.adapter_card import read_card
from shortft_core.errors import UnknownNameError, UserError, WeightsError
from shortft_core.events import EvaluationDone, Event, LogLine, RunFinished, RunStarted, read_jsonl
from shortft_core.run import RunFolder, run_job
from shortft_core.spec import AlignSpec
from shortft_core.spec.read import parse_spec


@pytest.fixture
def content(tiny_folder: Path) -> dict[str, Any]:
    return content_of(tiny_folder)


def content_of(tiny_folder: Path) -> dict[str, Any]:
    return {
        "base_model": {"path": str(tiny_folder)},
        "method": {"type": "draft_k", "steps": 3, "rank": 2, "batch_size": 2, "updates": 4},
        "rewards": [{"name": "brightness"}, {"name": "symmetry", "weight": 0.1}],
        "prompts": {"inline": ["a red circle", "a blue star"]},
        "evaluation": {
            "prompts": {"inline": ["a red star"]},
            "every_updates": 2,
            "seeds": 2,
            "held_out": ["colorfulness"],
        },
        "guard": {"max_heldout_drop": 1000.0},
    }


def run(spec: AlignSpec, path: Path, stop_after: int | None = None) -> list[Event]:
    events: list[Event] = []
    seen: list[int] = []

    def emit(event: Event) -> None:
        events.append(event)
        if event.type == "job.metrics":
            seen.append(event.update)

    run_job(
        spec,
        RunFolder(path),
        emit=emit,
        should_stop=lambda: stop_after is not None and len(seen) >= stop_after,
    )
    return events


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """The folder and the events of a run that nothing stopped; for reading."""
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, run(parse_spec(content_of(tiny_folder)), path)


def test_the_folder_holds_everything(whole: tuple[Path, list[Event]]) -> None:
    path, events = whole
    assert list(read_jsonl(path / "events.jsonl")) == events[1:]
    assert events[0].type == "job.phase"
    stored = AlignSpec.model_validate_json((path / "spec.json").read_text())
    assert stored.method.guidance_scale == 7.5
    card = read_card(path / "adapter")
    assert card.spec_sha256 == stored.sha256()
    assert card.rewards == ("brightness", "symmetry")
    assert len(card.timesteps) == 3
    assert (path / "best" / "shortft.json").is_file()
    assert {p.name for p in (path / "samples").iterdir()} == {"base", "000002", "000004"}
    assert len(list((path / "samples" / "base").glob("*.png"))) == 2


@pytest.mark.parametrize("stop_after", [0, 1, 2, 4])
def test_a_run_that_is_stopped_even_while_it_evaluates_equals_a_whole_one(
    content: dict[str, Any], whole: tuple[Path, list[Event]], tmp_path: Path, stop_after: int
) -> None:
    spec, (path, events) = parse_spec(content), whole
    stopped = run(spec, tmp_path / "parts", stop_after=stop_after)
    resumed = run(spec, tmp_path / "parts")
    assert [e.first_update for e in resumed if isinstance(e, RunStarted)] == [stop_after + 1]
    assert [e.outcome for e in stopped if isinstance(e, RunFinished)] == ["stopped"]
    assert [e.outcome for e in resumed if isinstance(e, RunFinished)] == ["completed"]
    assert evaluations([*stopped, *resumed]) == evaluations(events)
    assert [update for update, _ in evaluations(events)] == [2, 4]
    for name in ("adapter", "best"):
        ours = load_file(tmp_path / "parts" / name / "branch_1.safetensors")
        theirs = load_file(path / name / "branch_1.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def evaluations(events: list[Event]) -> list[tuple[int, dict[str, Any]]]:
    """Update and scores of each evaluation."""
    found = [event for event in events if isinstance(event, EvaluationDone)]
    return [(event.update, event.model_dump(include={"tuned", "is_best"})) for event in found]


def test_checkpoints_hold_adapters_where_asked(content: dict[str, Any], tmp_path: Path) -> None:
    content["method"] |= {"checkpoint_every": 2, "ema_decay": 0.5}
    spec = parse_spec(content)
    run_job(spec, RunFolder(tmp_path), emit=lambda _: None, save_adapters=True)
    saved = tmp_path / "checkpoints"
    assert read_card(saved / "000002" / "adapter").branches == ("branch_1.safetensors",)
    name = "adapter/branch_1.safetensors"
    last, early = load_file(saved / "000004" / name), load_file(saved / "000002" / name)
    final = load_file(tmp_path / name)
    assert all(torch.equal(last[key], final[key]) for key in final)
    assert any(not torch.equal(early[key], final[key]) for key in final)


def test_a_folder_belongs_to_one_specification(
    content: dict[str, Any], whole: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    folder = shutil.copytree(whole[0], tmp_path / "run")
    with pytest.raises(UserError, match="another specification"):
        run(parse_spec(content | {"seed": 1}), folder)


def test_a_wrong_path_can_be_corrected(content: dict[str, Any], tmp_path: Path) -> None:
    wrong = content | {"base_model": {"path": str(tmp_path / "nowhere")}}
    with pytest.raises(WeightsError, match="not a diffusers pipeline"):
        run(parse_spec(wrong), tmp_path / "run")
    events = run(parse_spec(content), tmp_path / "run")
    assert [e.updates for e in events if isinstance(e, RunFinished)] == [4]


def test_oddities_of_the_prompts_are_told(content: dict[str, Any], tmp_path: Path) -> None:
    content["prompts"] = {"inline": ["a red circle", "", "a red circle"]}
    messages = [e.message for e in run(parse_spec(content), tmp_path) if isinstance(e, LogLine)]
    assert any("empty" in message for message in messages)
    assert any("repeat" in message for message in messages)


def test_a_run_stopped_before_its_first_update_publishes_nothing(
    content: dict[str, Any], tmp_path: Path
) -> None:
    run(parse_spec(content), tmp_path, stop_after=0)
    assert not (tmp_path / "adapter").exists()


def test_unknown_names_are_refused_before_anything_is_loaded(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content["evaluation"] |= {"held_out": ["clipscor"]}
    with pytest.raises(UnknownNameError, match="Did you mean clipscore"):
        run(parse_spec(content), tmp_path)
    assert json.dumps([p.name for p in tmp_path.iterdir()]) == "[]"
