"""`shortft evaluate` on the tiny model: the same numbers as a run's own panel, with intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from shortft_core.cli import train
from shortft_core.cli.evaluate import evaluate
from shortft_core.errors import PromptError, UnknownNameError, UserError
from shortft_core.events import EvaluationDone, read_jsonl

PROMPTS = ["a red star", "a blue circle", "a star"]

Evaluate = Callable[..., str]


@pytest.fixture
def run_evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Evaluate:
    """Runs the command in a folder with `prompts.txt`, and returns what it printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join([*PROMPTS, PROMPTS[0]]) + "\n")
    app = typer.Typer()
    app.command()(evaluate)

    def run(*arguments: str) -> str:
        result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def trained(tiny_folder: Path, tmp_path: Path) -> Path:
    """A run of two updates that was evaluated on the same prompts."""
    spec = {
        "base_model": {"path": str(tiny_folder)},
        "method": {"type": "draft_k", "steps": 3, "rank": 2, "batch_size": 3, "updates": 2}
        | {"learning_rate": 0.1},
        "rewards": [{"name": "brightness"}],
        "prompts": {"inline": ["a red circle"]},
        "evaluation": {"prompts": {"inline": PROMPTS}, "held_out": ["symmetry"], "seeds": 2},
        "seed": 5,
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    train.train(tmp_path / "job.yaml", tmp_path / "run")
    return tmp_path / "run"


def judged(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_an_adapter_gets_the_scores_its_run_reported(
    run_evaluate: Evaluate, trained: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    printed = run_evaluate(
        *("--model", str(tiny_folder), "--adapter", str(trained / "adapter")),
        *("--prompts", "prompts.txt", "--reward", "brightness", "--reward", "symmetry"),
        *("--seeds", "2", "--seed", "5", "--batch-size", "3", "--out", "scores.json"),
    )
    events = read_jsonl(trained / "events.jsonl")
    (reported,) = (event for event in events if isinstance(event, EvaluationDone))
    found = judged(tmp_path / "scores.json")
    assert list(found["judges"]) == ["brightness", "symmetry"]
    for judge, scores in found["judges"].items():
        assert scores["base"] == reported.base[judge].model_dump()
        # The adapter is stored in half precision.
        assert scores["tuned"]["mean"] == pytest.approx(reported.tuned[judge].mean, abs=2e-3)
        assert scores["tuned"]["mean"] != scores["base"]["mean"]
        differences = [row["tuned"][judge] - row["base"][judge] for row in found["images"]]
        assert scores["change"]["mean"] == pytest.approx(fmean(differences))
        low, high = scores["change"]["interval"]
        assert low < scores["change"]["mean"] < high
        assert f"{scores['change']['mean']:+.4f}" in printed
    assert [row["prompt"] for row in found["images"]] == [p for p in PROMPTS for _ in range(2)]
    assert len({row["seed"] for row in found["images"]}) == 6
    assert (found["timesteps"], found["guidance_scale"]) == ([667, 334, 1], 7.5)
    card = json.loads((trained / "adapter" / "shortft.json").read_text())
    assert found["model_sha256"] == card["base_sha256"]
    assert found["adapter_sha256"] == ",".join(card["sha256"])
    assert max(map(len, printed.splitlines())) <= 80


def test_strengths_of_an_adapter_are_compared(
    run_evaluate: Evaluate, trained: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    asked = (
        *("--model", str(tiny_folder), "--adapter", str(trained / "adapter")),
        *("--prompts", "prompts.txt", "--reward", "brightness", "--out", "scores.json"),
    )
    scales = ("--adapter-scale", "0", "--adapter-scale", "0.5", "--adapter-scale", "1")
    printed = run_evaluate(*asked, *scales)
    none, half, whole = judged(tmp_path / "scores.json")["scales"]
    means = [each["judges"]["brightness"]["tuned"]["mean"] for each in (none, half, whole)]
    base = none["judges"]["brightness"]["base"]["mean"]
    assert means[0] == base
    assert abs(means[2] - base) > abs(means[1] - base) > 0
    assert [each["adapter_scale"] for each in (none, half, whole)] == ["0.0", "0.5", "1.0"]
    assert f"{base:.4f}" in printed
    for mean in means:
        assert f"{mean - base:+.4f} ±" in printed
    assert max(map(len, printed.splitlines())) <= 80
    run_evaluate(*asked)
    alone = judged(tmp_path / "scores.json")
    assert alone["judges"] == whole["judges"]
    assert alone["adapter_scale"] == "1.0"


def test_a_base_model_is_judged_alone(
    run_evaluate: Evaluate, tiny_folder: Path, tmp_path: Path
) -> None:
    printed = run_evaluate(
        *("--model", str(tiny_folder), "--prompts", "prompts.txt", "--reward", "brightness"),
        *("--steps", "2", "--count", "2", "--out", "scores.json"),
    )
    assert "2 images of 2 prompts" in " ".join(printed.split())
    assert "tuned" not in printed
    found = judged(tmp_path / "scores.json")
    assert list(found["judges"]["brightness"]) == ["base"]
    assert list(found["diversity"]) == ["base"]
    assert "adapter_sha256" not in found


def test_the_bundled_model_is_judged_with_its_own_weights(
    run_evaluate: Evaluate, tmp_path: Path
) -> None:
    run_evaluate(
        *("--prompts", "shapes-eval", "--reward", "clipscore", "--reward", "oracle"),
        *("--count", "2", "--steps", "12", "--out", "scores.json"),
    )
    found = judged(tmp_path / "scores.json")
    assert list(found["judges"]) == ["clipscore", "oracle"]
    assert found["judges"]["oracle"]["base"]["mean"] > 0.4


def test_the_oracle_may_be_the_only_judge(run_evaluate: Evaluate) -> None:
    few = ("--count", "1", "--steps", "2")
    printed = run_evaluate("--prompts", "shapes-eval", "--reward", "oracle", *few)
    assert "oracle" in printed
    assert "target" not in printed


def test_a_prompt_that_is_cut_is_named(run_evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a" + " red" * 40 + "\na star\n")
    printed = run_evaluate("--prompts", "long.txt", "--reward", "brightness", "--steps", "1")
    assert "the text encoder cuts 1 prompts, for example 'a red red" in " ".join(printed.split())


def test_prompts_outside_the_oracles_grammar_are_refused_before_anything_is_drawn(
    run_evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shortft_core.generate import Sampler

    monkeypatch.delattr(Sampler, "images")
    with pytest.raises(PromptError, match="the oracle cannot judge 'a star'"):
        run_evaluate("--prompts", "prompts.txt", "--reward", "oracle")


@pytest.mark.parametrize(
    ("arguments", "kind", "problem"),
    [
        (("--prompts", "shapes-evl"), UnknownNameError, "Did you mean shapes-eval"),
        (("--reward", "hps_v3"), UnknownNameError, "Did you mean hps_v2"),
        (("--reward", "symmetry"), UserError, "symmetry is named twice"),
        (("--adapter", ".", "--steps", "5"), UserError, "an adapter serves only its own chain"),
        (("--adapter", "."), UserError, r"holds no shortft\.json"),
        (("--adapter-scale", "0.5"), UserError, "there is no adapter to scale"),
        (("--out", "."), UserError, "is a folder. Name a file"),
        (("--model", "shape"), UnknownNameError, "Did you mean shapes"),
    ],
)
def test_nonsense_is_refused(
    run_evaluate: Evaluate, arguments: tuple[str, ...], kind: type[UserError], problem: str
) -> None:
    usual = {"--prompts": "prompts.txt"} if arguments[0] != "--prompts" else {}
    given = [word for pair in usual.items() for word in pair]
    with pytest.raises(kind, match=problem):
        run_evaluate(*given, "--reward", "symmetry", *arguments)
