"""The command line as a user types it, on the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from shortft_core import catalog
from shortft_core.cli import app, main
from shortft_core.errors import MissingWeightsError, UnknownNameError, UserError

Shortft = Callable[..., str]


@pytest.fixture
def shortft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shortft:
    """Runs a command in a folder of its own and returns what it printed."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"COLUMNS": "200"})

    def run(*arguments: str) -> str:
        result = runner.invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("models", catalog.BASE_MODELS),
        ("rewards", catalog.REWARDS),
        ("methods", catalog.METHODS),
        ("prompts", catalog.PROMPT_SETS),
    ],
)
def test_lists_show_the_whole_catalog(shortft: Shortft, table: str, names: dict[str, str]) -> None:
    printed = shortft(table, "list")
    assert all(name in printed for name in names)


def test_train_then_generate_with_the_adapter(
    shortft: Shortft, tiny_folder: Path, tmp_path: Path
) -> None:
    spec = {
        "base_model": {"path": str(tiny_folder)},
        "method": {"type": "draft_k", "steps": 3, "rank": 2, "batch_size": 1, "updates": 2},
        "rewards": [{"name": "brightness"}],
        "prompts": {"inline": ["a red circle"]},
        "evaluation": {"prompts": {"inline": ["a red star"]}, "held_out": []},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    printed = shortft("train", "job.yaml")
    assert "brightness" in printed
    run = Path("runs") / "job"
    assert (tmp_path / run / "adapter" / "shortft.json").is_file()
    assert f"adapter: {run / 'adapter'}\nbest: {run / 'best'}\nreport: {run}" in printed
    report = (tmp_path / run / "report.html").read_text()
    assert "a red star" in report
    assert report.count("data:image/png") == 2
    model = ("--model", str(tiny_folder))
    shortft("generate", "a red", *model, "--adapter", "runs/job/adapter", "--out", "tuned")
    shortft("generate", "a red", *model, "--steps", "3", "--out", "base")
    (tuned,), (base,) = ([*(tmp_path / name).iterdir()] for name in ("tuned", "base"))
    assert (tuned.name, base.name) == ("0000-0.png", "0000-0.png")
    with Image.open(tuned) as one, Image.open(base) as two:
        assert one.info["steps"] == two.info["steps"] == "3"
        assert not np.array_equal(np.asarray(one), np.asarray(two))


def test_generate_numbers_its_seeds(shortft: Shortft, tiny_folder: Path, tmp_path: Path) -> None:
    arguments = ("--model", str(tiny_folder), "--steps", "1", "--count", "2", "--seed", "5")
    shortft("generate", "a", "a red", *arguments)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == ["0000-5.png", "0001-6.png", "0002-5.png", "0003-6.png"]


def test_score_prints_raw_values(shortft: Shortft, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / "white.png")
    printed = shortft(
        "score", "white.png", "--prompt", "snow", "--reward", "brightness", "--reward", "symmetry"
    )
    assert "1.0000" in printed
    assert "-0.0000" in printed


def test_a_file_that_is_no_picture_is_refused(shortft: Shortft, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="Give a PNG or JPEG"):
        shortft("score", "text.png", "--prompt", "a", "--reward", "brightness")


def test_a_size_off_the_vae_factor_is_refused(shortft: Shortft, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="height: 15 is not a multiple of 2"):
        shortft("generate", "a", "--model", str(tiny_folder), "--height", "15")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--adapter", "a", "--steps", "20"), "an adapter serves only its own chain"),
        (("--adapter-scale", "0.5"), "there is no adapter to scale"),
        (("--model", "a/b/c"), "no known name, existing path or hub id"),
        (("--height", "0"), "height: 0 is not a multiple"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    shortft: Shortft, arguments: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        shortft("generate", "a", *arguments)


def test_weights_for_a_reward_without_any_are_refused(shortft: Shortft) -> None:
    arguments = ("--prompt", "a", "--weights", "shapes")
    with pytest.raises(UserError, match="have no weights"):
        shortft("score", "a.png", *arguments, "--reward", "brightness")
    with pytest.raises(UserError, match=r"weights\.combined"):
        shortft("score", "a.png", "--prompt", "a", "--weights", "o/r", "--reward", "combined")


def test_mistakes_end_with_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("rewards: [{name: hpsv2}]\n")
    monkeypatch.setattr("sys.argv", ["shortft", "train", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "base_model" in shown


def test_fetching_names_what_is_missing_offline(shortft: Shortft) -> None:
    assert "shapes-base" in shortft("models", "fetch", "shapes")
    with pytest.raises(MissingWeightsError, match="xswu/HPSv2"):
        shortft("models", "fetch", "hps_v2")
    with pytest.raises(UnknownNameError, match="Did you mean"):
        shortft("models", "fetch", "hps_v3")
