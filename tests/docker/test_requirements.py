"""The API's image holds no torch, however far one follows its requirements."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from typing import Final

import pytest
from packaging.requirements import Requirement

from tests.docker import compose

HEAVY: Final = {"accelerate", "diffusers", "open-clip-torch", "peft", "torch", "transformers"}


def _direct(*extras: str) -> list[str]:
    """What the script prints that the images are built from."""
    done = subprocess.run(
        [sys.executable, "docker/requirements.py", *extras],
        cwd=compose.ROOT, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.splitlines()


def _closure(lines: list[str]) -> set[str]:
    """Names of everything that is needed, as far as it is installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        for extra in {"", *requirement.extras}:
            key = (requirement.name.lower().replace("_", "-"), extra)
            if key not in found:
                found.add(key)
                waiting += _needed(requirement.name, extra)
    return {name for name, _ in found}


def _needed(name: str, extra: str) -> list[Requirement]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return []
    parsed = [Requirement(line) for line in lines]
    return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": extra})]


def test_the_api_needs_no_torch() -> None:
    needed = _closure(_direct("server"))
    assert {"fastapi", "starlette", "sqlalchemy", "celery", "kombu", "pydantic-core"} <= needed
    assert needed & HEAVY == set()


def test_the_worker_needs_torch_and_the_server() -> None:
    assert {*HEAVY, "celery", "sqlalchemy"} <= _closure(_direct("server", "train"))


@pytest.mark.parametrize("extra", ["server", "train"])
def test_every_requirement_has_one_exact_version(extra: str) -> None:
    lines = (compose.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {
        Requirement(line).name.lower().replace("_", "-")
        for line in lines
        if not line.startswith("#")
    }
    direct = {Requirement(line).name.lower().replace("_", "-") for line in _direct(extra)}
    assert len(direct) > 10
    assert direct <= pinned
