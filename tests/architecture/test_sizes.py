"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE_LINES: Final = 400
FUNCTION_LINES: Final = 50
MEDIAN_FUNCTION_LINES: Final = 12

EXCEPTIONS: Final[dict[str, str]] = {}
"""`path` or `path:function` -> why it may be longer than the budget."""


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def _over_budget(path: Path, root: Path) -> Iterator[str]:
    name = path.relative_to(root).as_posix()
    if len(path.read_text(encoding="utf-8").splitlines()) > FILE_LINES:
        yield name
    for function, lines in _functions(path):
        if lines > FUNCTION_LINES:
            yield f"{name}:{function}"


def test_files_and_their_functions_are_within_budget(sources: list[Path], root: Path) -> None:
    over = [name for source in sources for name in _over_budget(source, root)]
    assert [name for name in over if name not in EXCEPTIONS] == []


def test_every_exception_is_still_needed(root: Path) -> None:
    paths = {name.partition(":")[0] for name in EXCEPTIONS}
    over = {name for path in paths for name in _over_budget(root / path, root)}
    assert set(EXCEPTIONS) <= over


def test_the_median_function_is_short(root: Path) -> None:
    packages = [
        path
        for room in (
            "shortft_core",
            "store",
            "migrations",
            "api",
            "worker",
            "shortft_client",
            "shapes",
            "benchmarks",
        )
        for path in (root / room).rglob("*.py")
    ]
    lines = [lines for path in packages for _, lines in _functions(path)]
    assert statistics.median(lines) < MEDIAN_FUNCTION_LINES
