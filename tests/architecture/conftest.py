"""What the rules look at: source files, documents, and whatever people write."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = (
    "shortft_core", "store", "migrations", "api", "worker", "shortft_client", "shapes",
    "benchmarks", "tests",
)  # fmt: skip
ROOT_FILES: Final = (
    "*.md", "*.toml", "*.txt", "*.yml", "Makefile", ".ci/*", ".env.example", ".gitignore",
    "docker/*", "docs/**/*.md",
)  # fmt: skip
ROOM_FILES: Final = ("**/*.py", "**/*.md", "**/Makefile")


def _below(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


SOURCES: Final = [path for room in ROOMS for path in _below(ROOT / room, ("**/*.py",))]
TEXTS: Final = _below(ROOT, ROOT_FILES) + [
    path for room in ROOMS for path in _below(ROOT / room, ROOM_FILES)
]
DOCUMENTS: Final = [path for path in TEXTS if path.suffix == ".md"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`document`: a Markdown file; the test runs once for each."""
    if "document" in metafunc.fixturenames:
        ids = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
        metafunc.parametrize("document", DOCUMENTS, ids=ids)


@pytest.fixture(scope="session")
def sources() -> list[Path]:
    """Every Python file."""
    return SOURCES


@pytest.fixture(scope="session")
def texts() -> list[Path]:
    """Every file that people write."""
    return TEXTS


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT
