"""`shortft generate --server`: what is asked for, and which files come of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from shortft_client.commands.generate import NotMadeError
from shortft_core.cli import app
from tests.shortft_client.scripted import Script, Scripted, Seen, answer, serving


def _script(status: str = "succeeded") -> Script:
    def script(request: Seen) -> Scripted:
        if request.method == "GET":
            return Scripted(200, {"Content-Type": "image/png"}, (request.path.encode(),))
        asked = request.json()
        images = [
            {
                "id": f"img_{kind}{place}",
                "pair_index": place,
                "kind": kind,
                "prompt": prompt,
                "seed": seed,
                "width": 8,
                "height": 8,
                "media_type": "image/png",
            }
            for place, (prompt, seed) in enumerate(
                zip(asked["prompts"], asked["seeds"], strict=True)
            )
            for kind in (("base", "tuned") if asked["compare_base"] else ("tuned",))
        ]
        error = {"code": "out_of_memory", "message": "no memory"} if status == "failed" else None
        return answer(
            {
                "id": "gen_1",
                "status": status,
                "created_at": "2026-01-01T00:00:00Z",
                "images": images if status == "succeeded" else [],
                "warnings": ["another guidance"],
                "error": error,
            }
        )

    return script


def _generate(server: str, *arguments: str) -> str:
    runner = CliRunner(env={"COLUMNS": "160"})
    done = runner.invoke(app, ["generate", "--server", server, *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_an_adapter_is_an_id_and_pictures_are_saved_beside_the_base_models(tmp_path: Path) -> None:
    with serving(_script()) as server:
        arguments = ("--adapter", "job_1@best", "--adapter-scale", "0.5", "--guidance-scale", "3")
        more = ("--compare-base", "--seed", "5", "--out", str(tmp_path / "got"))
        printed = _generate(server.address, "a cat", *arguments, *more)
    assert server.seen[0].json() == {
        "prompts": ["a cat"],
        "seeds": [5],
        "adapters": [{"id": "job_1@best", "scale": 0.5}],
        "compare_base": True,
        "guidance_scale": 3.0,
    }
    assert "warning: another guidance" in printed
    names = {path.name: path.read_text() for path in (tmp_path / "got").iterdir()}
    assert names == {
        "0000-5-base.png": "/images/img_base0",
        "0000-5.png": "/images/img_tuned0",
    }


def test_more_pictures_than_a_request_may_make_become_several(tmp_path: Path) -> None:
    with serving(_script()) as server:
        _generate(server.address, "a", "b", "--count", "10", "--out", str(tmp_path), "--steps", "9")
    asked = [request.json() for request in server.seen if request.method == "POST"]
    assert [len(one["prompts"]) for one in asked] == [16, 4]
    assert asked[1] == {
        "prompts": ["b"] * 4,
        "seeds": [6, 7, 8, 9],
        "base_model": "shapes",
        "compare_base": False,
        "num_inference_steps": 9,
    }
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 20
    assert (names[0], names[10], names[-1]) == ("0000-0.png", "0010-0.png", "0019-9.png")


def test_a_generation_that_fails_says_why(tmp_path: Path) -> None:
    with serving(_script("failed")) as server, pytest.raises(NotMadeError, match="no memory"):
        _generate(server.address, "a", "--out", str(tmp_path))
