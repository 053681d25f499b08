"""`shortft demo` from the first process to the picture, on a job of two updates."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from starlette.testclient import TestClient

from api.app import create_app
from api.embedded.settings import environment
from api.settings import ApiSettings
from migrations.run import upgrade
from shortft_client import Client
from store.engine import open_database
from store.server_secret import secret_file
from store.settings import StoreSettings
from tests.api.embedded_service import QUICK, contract_job, processes_of
from tests.api.process import refusal

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


def test_a_demo_leaves_other_work_alone_and_stops_in_order(tmp_path: Path) -> None:
    content = {**SPEC, "method": {"type": "draft_k", "updates": 500}}
    content["metadata"] = {"step_seconds": "0.1"}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(content))
    folder = tmp_path / "run"
    own, others = _left_behind(folder, {"demo": "1"}, {"demo": "no"})
    elsewhere = {
        "SHORTFT_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:9/production",
        "SHORTFT_REDIS_URL_FILE": str(tmp_path / "absent"),
        "SHORTFT_STORAGE_URL": "s3://production/objects",
        "SHORTFT_SECRET_KEY": "too short",
        "SHORTFT_API_KEY": "sft_of_another_service",
        "SHORTFT_HOST": "0.0.0.0",  # noqa: S104
    }
    with _demo(folder, tmp_path / "long.yaml", **elsewhere) as process:
        assert process.stdout is not None
        said = ""
        while "/500" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        address = re.search(r"^ready: (\S+),", said, re.MULTILINE)
        assert address is not None, said
        with Client(address[1], api_key="") as client:
            statuses = {job.id: job.status for job in client.jobs.list()}
            (running,) = client.jobs.list(status="running", metadata={"demo": "1"})
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate()
        assert process.returncode == 128 + signal.SIGTERM
        assert processes_of(folder) == {}
    assert "stopping the service" in rest
    assert (statuses[own], statuses[others]) == ("cancelled", "paused")
    assert running.metadata == {"step_seconds": "0.1", "demo": "1"}


@pytest.mark.parametrize(
    "prompts", [None, {"name": "shapes-eval"}, {"inline": []}, {"inline": ["a red ring"] * 17}]
)
def test_a_job_that_could_not_be_drawn_is_refused_before_anything_starts(
    tmp_path: Path,
    prompts: dict[str, Any] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = {**SPEC, "evaluation": {} if prompts is None else {"prompts": prompts}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    options = ["--folder", str(tmp_path / "run"), "--spec", str(tmp_path / "spec.yaml")]
    said = refusal(monkeypatch, capsys, "demo", *options)
    assert "evaluation.prompts: the demo draws them" in said
    assert not (tmp_path / "run").exists()


def _demo(folder: Path, spec: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "shortft_core.cli", "demo"),
            *("--folder", str(folder), "--spec", str(spec)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment({**QUICK, **variables}, defaults={"PYTHONPATH": os.pathsep.join(sys.path)}),
    )


def _left_behind(folder: Path, *labels: dict[str, str]) -> list[str]:
    """Paused jobs that an earlier service has left in its folder, one for each set of labels.

    The application runs in this process: no worker of that service is needed to pause a job.
    """
    folder.mkdir()
    store = StoreSettings(data_dir=folder, secret_key_file=secret_file(folder))
    database = open_database(store.database_address())
    upgrade(database.engine)
    database.close()
    app = create_app(ApiSettings(), store)
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 50_000)) as earlier:
        left = []
        for given in labels:
            content = contract_job(500, step_seconds="0.1", **given)
            job_id = earlier.post("/jobs", json=content).json()["id"]
            paused = earlier.post(f"/jobs/{job_id}/pause")
            assert paused.json()["status"] == "paused", paused.text
            left.append(job_id)
    return left
