"""`shortft demo` from the first process to the picture, on a job of two updates."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.api.embedded_service import processes_of

pytestmark = pytest.mark.timeout(600)
"""The service starts, the bundled model is tuned, and two workers load it."""
SPEC = {
    "base_model": {"name": "shapes"},
    "method": {"type": "draft_k", "steps": 4, "rank": 2, "updates": 2, "batch_size": 1},
    "rewards": [{"name": "symmetry", "weight": 2.0}],
    "prompts": {"inline": ["a red circle on a white background"]},
    "evaluation": {
        "prompts": {"inline": ["a red star on a white background", "a blue ring on a gray one"]},
        "count": 2,
        "held_out": ["brightness"],
    },
}


def test_the_demo_tunes_over_http_draws_its_picture_and_stops(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SPEC))
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "shortft_core.cli", "demo", "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--spec", str(tmp_path / "small.yaml")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "ready: http://127.0.0.1:",
        "job: job_",
        "update 2/2",
        "held-out images",
        "│ brightness │",
        "completed after 2 updates",
        f"picture: {folder / 'before_after.png'}",
        "service: http://127.0.0.1:",
    ):
        assert expected in done.stdout
    with Image.open(folder / "before_after.png") as sheet:
        assert sheet.width > 300
        assert len(sheet.convert("RGB").getcolors(1 << 24) or ()) > 100
    assert len(list((folder / "pictures").iterdir())) == 4
    with zipfile.ZipFile(folder / "adapter.zip") as adapter:
        assert "adapter/shortft.json" in adapter.namelist()
    assert (folder / "report.html").read_text().startswith("<!")
    assert processes_of(tmp_path) == {}
