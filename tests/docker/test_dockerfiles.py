"""The Dockerfiles pass a linter and say what a container must not be: root, a shell, unpinned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docker import compose

FOLDER: Final = compose.ROOT / "docker"
DOCKERFILES: Final = sorted(FOLDER.glob("*.Dockerfile"))
SERVICE_USER: Final = "10001"


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def lines(request: pytest.FixtureRequest) -> list[str]:
    """The instructions of a Dockerfile, one a line."""
    text: str = request.param.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_there_are_two() -> None:
    assert [path.name for path in DOCKERFILES] == ["api.Dockerfile", "worker.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_finds_nothing(path: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.is_file():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, path], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_base_images_are_pinned_to_a_minor_version(lines: list[str]) -> None:
    images = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(images) == 2
    assert [image for image in images if not re.fullmatch(r"python:3\.\d+-slim-\w+", image)] == []


def test_the_last_stage_is_not_root(lines: list[str]) -> None:
    last = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]
    users = [line for line in last if line.startswith("USER ")]
    assert users == [f"USER {SERVICE_USER}:{SERVICE_USER}"]
    after = last[last.index(users[0]) :]
    assert [line for line in after if line.startswith(("RUN ", "COPY "))] == []


def test_the_command_is_in_exec_form(lines: list[str]) -> None:
    (command,) = [line for line in lines if line.startswith(("CMD ", "ENTRYPOINT "))]
    assert json.loads(command.removeprefix("CMD "))[:2] == ["python", "-m"]


def test_requirements_are_a_layer_below_the_code(lines: list[str]) -> None:
    install = next(i for i, line in enumerate(lines) if "--requirement" in line)
    assert "--constraint constraints.txt" in lines[install]
    copied = [line for line in lines[:install] if line.startswith("COPY ")]
    assert copied == [
        "COPY pyproject.toml constraints.txt ./", "COPY docker/requirements.py docker/",
    ]  # fmt: skip
    assert lines.index("COPY . .") > install


def test_folders_of_volumes_belong_to_the_service(lines: list[str]) -> None:
    (made,) = [line for line in lines if "install --directory" in line]
    assert f"--owner={SERVICE_USER} --group={SERVICE_USER} --mode=0700" in made
    targets = {
        target for name in compose.OWN for target in compose.targets(compose.services()[name])
    }
    assert targets <= set(made.split())
